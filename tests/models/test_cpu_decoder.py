"""The CPU form of the decoder against the plain layers it was made from, over the same paged cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tests.random_checkpoint import Shape, random_checkpoint

from autoglm_backend.engine.kernel_choice import prepare_decoder
from autoglm_backend.engine.kv_cache import KVCache, paged_attend
from autoglm_backend.engine.scheduler import Row
from autoglm_backend.engine.sequence import Prompt, Sequence
from autoglm_backend.engine.step_tables import segment_tables
from autoglm_backend.models.config import load_model_config
from autoglm_backend.models.decoder import TextDecoder
from autoglm_backend.models.shards import checkpoint_shards, text_name
from autoglm_backend.models.weights import load_module
from autoglm_protocol.sampling import SamplingParams

BLOCK_TOKENS = 4
POISON = 1e30
SHAPES = {
    "GLM-like": Shape(hidden=256, heads=4, kv_heads=2, layers=2, mrope_section=(4, 6, 6)),
    "one KV head, odd sizes": Shape(hidden=96, heads=3, kv_heads=1, layers=2, mrope_section=(2, 3, 3)),
    "fully rotary, tied": Shape(layers=3, mrope_section=(2, 3, 3), partial_rotary=1.0, tied=True),
}
# (tokens already cached, tokens of this step): decoding, a draft's verification, a fresh prompt, a later chunk.
ROWS = ((9, 1), (3, 4), (0, 11), (6, 5))


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


def load(directory: Path, dtype: torch.dtype) -> TextDecoder:
    decoder = TextDecoder(load_model_config(directory).text).to(dtype)
    load_module(decoder, checkpoint_shards(directory), text_name)
    return decoder.eval().requires_grad_(False)


def sequences(count: int) -> list[Sequence]:
    """With blocks of their own, in an order that is not the cache's."""
    made: list[Sequence] = []
    for number in range(count):
        sequence = Sequence(
            tag=str(number),
            index=0,
            prompt=Prompt(ids=(1,) * 16, positions_3T=torch.arange(16).expand(3, 16).numpy(), rope_delta=0),
            sampling=SamplingParams(),
            segments=((0, 1),),
            max_tokens=1,
            stop_ids=frozenset(),
            emit=lambda event: None,
        )
        sequence.blocks = [[count * place + number for place in (2, 0, 3, 1)]]
        sequence.kv_len = [0]
        made.append(sequence)
    return made


@torch.inference_mode()
def run(decoder: TextDecoder, spans: list[tuple[int, int]]) -> list[torch.Tensor]:
    """Cache each row's first tokens, then run all the rows together; their logits."""
    config = decoder.config
    dtype = decoder.norm.weight.dtype
    made = sequences(len(ROWS))
    cache = KVCache(config, 4 * len(ROWS), BLOCK_TOKENS, dtype, torch.device("cpu"), poison=POISON)
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 90, (len(ROWS), 16), generator=generator)

    def step(rows: list[tuple[int, int, int]]) -> list[torch.Tensor]:
        scheduled = [Row(sequence=made[number], start=start, count=count) for number, start, count in rows]
        hidden = decoder.embed_tokens(torch.cat([ids[n, s : s + c] for n, s, c in rows]))
        positions = torch.cat([torch.arange(s, s + c) for _, s, c in rows])
        attend = paged_attend(cache, segment_tables(scheduled, 0, BLOCK_TOKENS))
        hidden = decoder.run_span(0, config.num_layers, hidden, decoder.rotation(positions.expand(3, -1)), attend)
        for row in scheduled:
            row.sequence.kv_len[0] = row.stop
        return list(decoder.logits(hidden).float().split([count for _, _, count in rows]))

    for number, (cached, _) in enumerate(spans):
        if cached:
            step([(number, 0, cached)])
    return step([(number, cached, count) for number, (cached, count) in enumerate(spans)])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)], ids=str)
def test_logits_equal_the_plain_layers(tmp_path: Path, shape: Shape, dtype: torch.dtype, tolerance: float) -> None:
    random_checkpoint(tmp_path, shape)
    expected = torch.cat(run(load(tmp_path, dtype), list(ROWS)))
    decoder = load(tmp_path, dtype)
    prepare_decoder(decoder, "none", BLOCK_TOKENS, tmp_path / "cache")
    got = torch.cat(run(decoder, list(ROWS)))
    assert (got - expected).norm() / expected.norm() < tolerance


@pytest.mark.parametrize(("quantization", "bound"), [("int8", 0.12), ("int4", 0.6)])
def test_quantized_logits_stay_within_their_bound(tmp_path: Path, quantization: str, bound: float) -> None:
    random_checkpoint(tmp_path, SHAPES["GLM-like"])
    expected = torch.cat(run(load(tmp_path, torch.float32), list(ROWS)))
    decoder = load(tmp_path, torch.bfloat16)
    prepare_decoder(decoder, quantization, BLOCK_TOKENS, tmp_path / "cache")
    got = torch.cat(run(decoder, list(ROWS)))
    assert (got - expected).norm() / expected.norm() < bound


def test_int8_gives_a_token_the_same_logits_in_one_step_as_one_by_one(tmp_path: Path) -> None:
    random_checkpoint(tmp_path, SHAPES["GLM-like"])
    decoder = load(tmp_path, torch.float32)
    prepare_decoder(decoder, "int8", BLOCK_TOKENS, tmp_path / "cache")
    together = run(decoder, [(3, 4), *ROWS[1:]])[0]
    for count in range(4):
        assert torch.equal(run(decoder, [(3 + count, 1), *ROWS[1:]])[0][0], together[count])


def test_threads_do_not_change_attention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoglm_backend.models.cpu_attention.PARALLEL_FROM", 1)
    random_checkpoint(tmp_path, SHAPES["GLM-like"])
    decoder = load(tmp_path, torch.float32)
    prepare_decoder(decoder, "int8", BLOCK_TOKENS, tmp_path / "cache")
    with threads(1):
        alone = torch.cat(run(decoder, list(ROWS)))
    with threads(2):
        assert torch.equal(torch.cat(run(decoder, list(ROWS))), alone)


def test_a_read_beyond_what_was_written_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="beyond the written"):
        segment_tables([Row(sequence=sequences(1)[0], start=3, count=1)], 0, BLOCK_TOKENS)

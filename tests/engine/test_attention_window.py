"""Narrow attention: right against dense masks, frees what nobody reads, and shares only what is the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.engine.depth_world import Dense, certified_checkpoint, service, write_certificate
from tests.engine.test_depth_failures import drafting
from tests.engine.test_engine import Stream, ask, prompt

from autoglm_backend.engine.block_manager import BlockManager
from autoglm_backend.engine.kv_cache import KVCache, paged_attend
from autoglm_backend.engine.scheduler import Row
from autoglm_backend.engine.sequence import Prompt, Sequence
from autoglm_backend.engine.service import DecoderService
from autoglm_backend.engine.step_tables import segment_tables
from autoglm_backend.models.attention_window import SINK_TOKENS, AttentionWindow, WindowOffer, load_window_offer
from autoglm_backend.models.config import CheckpointError, TextConfig
from autoglm_backend.models.decoder import masked_attend
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.events import Finished
from autoglm_protocol.plan import ExitMode
from autoglm_protocol.sampling import SamplingParams
from autoglm_protocol.wire import DecodeRequest

LEAST, SINK, WINDOW = 4, 3, 6
GREEDY = SamplingParams(temperature=0.0, max_tokens=20, ignore_eos=True)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = certified_checkpoint(tmp_path_factory.mktemp("window"), {})
    allow(directory, {"least": LEAST, "sink": SINK})
    write_certificate(directory, {})  # of the description as it is now
    return directory


def allow(directory: Path, window: object) -> None:
    path = directory / "exits" / "exits.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "attention_window": window}))


def narrow(tag: str, ids: np.ndarray, window: int | None = WINDOW, depth: int = 4, **more: object) -> DecodeRequest:
    request = ask(tag, ids, depth=depth, sampling=GREEDY, **more)  # type: ignore[arg-type]
    assert request.plan is not None
    return replace(request, plan=replace(request.plan, attention_window=window))


def sees(length: int, window: int | None, sink: int = SINK) -> torch.Tensor:
    """The mask [T, T] in its plainest form."""
    q, k = torch.arange(length)[:, None], torch.arange(length)
    return (k <= q) if window is None else (k <= q) & ((k > q - window) | (k < sink))


def reference(directory: Path, ids: np.ndarray, window: int | None, depth: int = 4) -> list[int]:
    """Greedy tokens of a dense float64 decoder that knows no cache, only a mask."""
    dense, tokens = Dense(directory), ids.tolist()
    with torch.no_grad():
        for _ in range(GREEDY.max_tokens or 0):
            state = dense._states(tokens, masked_attend(sees(len(tokens), window)))[depth][-1:]
            normed = dense.decoder.norm(state) if depth == 4 else dense.exits(depth, state)
            tokens.append(int(dense.decoder.lm_head(normed).argmax()))
    return tokens[len(ids) :]


PRESSURE = {
    "alone": {"block_tokens": 4},
    "one block": {"block_tokens": 64},
    "chunked": {"block_tokens": 4, "max_step_tokens": 5},
    "preempted": {"block_tokens": 4, "kv_cache_tokens": 96},
}


@pytest.mark.parametrize("options", PRESSURE.values(), ids=PRESSURE)
def test_tokens_equal_a_dense_mask_beside_rows_that_see_everything(directory: Path, options: dict[str, int]) -> None:
    engine = drafting(directory, 1, 3, **options)
    asked = [(WINDOW, 4), (None, 4), (LEAST, 2), (11, 4)]
    streams = [Stream() for _ in asked]
    for number, ((window, depth), stream) in enumerate(zip(asked, streams, strict=True)):
        engine.add(narrow(f"r{number}", prompt(25, number), window, depth), stream)
    answers = [stream.ids() for stream in streams]
    engine.shutdown()
    assert answers == [reference(directory, prompt(25, n), window, depth) for n, (window, depth) in enumerate(asked)]


@pytest.mark.parametrize("num_drafts", [1, 5])
def test_lossless_equals_full_depth_under_the_same_window(directory: Path, num_drafts: int) -> None:
    engine, stream = drafting(directory, 2, num_drafts, block_tokens=4), Stream()
    engine.add(narrow("a", prompt(25, 7), exit_mode=ExitMode.LOSSLESS), stream)
    answer, graph = stream.ids(), stream.end()
    engine.shutdown()
    assert isinstance(graph, Finished)
    assert graph.dynamic_graph["drafts_proposed"]
    assert answer == reference(directory, prompt(25, 7), WINDOW) != reference(directory, prompt(25, 7), None)


class Spoiled:
    """Ruins the content of every block that is given back early, and counts those that rows still own."""

    def __init__(self, engine: DecoderService, patch: pytest.MonkeyPatch) -> None:
        self.most_owned = 0
        cache = engine._engine._runner.spans.cache  # type: ignore[attr-defined]
        release = BlockManager.release_unread

        def spoil(blocks: BlockManager, sequence: Sequence) -> None:
            before = [list(table) for table in sequence.blocks]
            release(blocks, sequence)
            for segment, (low, high) in enumerate(sequence.segments):
                for old, new in zip(before[segment], sequence.blocks[segment], strict=True):
                    if old is not None and new is None:
                        for layer in range(low, high):
                            cache.keys[layer][old] = cache.values[layer][old] = 1e30
                self.most_owned = max(self.most_owned, sum(block is not None for block in sequence.blocks[segment]))

        patch.setattr(BlockManager, "release_unread", spoil)


def test_blocks_that_no_later_token_reads_are_given_back(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = drafting(directory, 1, 3, block_tokens=2, prefix_cache=False, max_step_tokens=4)
    spoiled, stream = Spoiled(engine, monkeypatch), Stream()
    ids = prompt(25, 7)
    engine.add(narrow("a", ids, exit_mode=ExitMode.LOSSLESS), stream)
    answer = stream.ids()
    assert isinstance(stream.end(), Finished)
    usage = engine.stats().kv_usage
    engine.shutdown()
    assert answer == reference(directory, ids, WINDOW)
    # The prompt's 13 are reserved at once; 45 tokens fill 23, of which the answer's take the place of the prompt's.
    assert spoiled.most_owned <= 13
    assert usage == 0.0


def test_a_long_answer_takes_no_more_memory_than_sink_window_and_step(directory: Path) -> None:
    engine = service(directory, block_tokens=2, prefix_cache=False)
    used: dict[int, object] = {}
    for count in (20, 40):
        stream = Stream()
        request = narrow(f"r{count}", prompt(5, 1))
        engine.add(replace(request, sampling=replace(GREEDY, max_tokens=count)), stream)
        end = stream.end()
        assert isinstance(end, Finished)
        used[count] = end.dynamic_graph["kv_bytes"]
    engine.shutdown()
    # Two sink blocks and four for six tokens and the next; a token of 4 layers is 2 KV heads of 16 numbers, twice.
    assert used == {20: 6 * 2 * 4 * 2 * 2 * 16 * 8, 40: 6 * 2 * 4 * 2 * 2 * 16 * 8}


def test_prefixes_are_shared_under_one_window_and_as_far_as_it_changes_nothing(directory: Path) -> None:
    engine = service(directory, block_tokens=2)
    cached: list[int] = []
    for number, window in enumerate([WINDOW, WINDOW, None, 11, WINDOW]):
        stream = Stream()
        engine.add(narrow(f"r{number}", prompt(24, 3), window), stream)
        assert stream.ids() == reference(directory, prompt(24, 3), window)
        end = stream.end()
        assert isinstance(end, Finished)
        cached.append(end.usage.cached_tokens)
    engine.shutdown()
    assert cached == [0, 22, 8, 14, 22]


@pytest.mark.parametrize(
    ("window", "mode", "complaint"),
    [
        (LEAST - 1, ExitMode.FIXED, f"must be a whole number from {LEAST}"),
        (WINDOW, ExitMode.CERTIFIED, "a certificate holds for all keys"),
    ],
)
def test_a_window_that_cannot_be_is_refused(directory: Path, window: int, mode: ExitMode, complaint: str) -> None:
    engine = service(directory)
    with pytest.raises(InvalidRequestError, match=complaint) as refusal:
        engine.add(narrow("a", prompt(9, 1), window, exit_mode=mode), Stream())
    engine.shutdown()
    assert refusal.value.param == "attention_window"


def test_a_window_as_wide_as_the_context_is_no_window(directory: Path) -> None:
    engine, stream = service(directory), Stream()
    engine.add(narrow("a", prompt(9, 1), 10**30), stream)
    assert stream.ids() == reference(directory, prompt(9, 1), None)
    engine.shutdown()


def test_a_checkpoint_says_what_it_bears(tmp_path: Path) -> None:
    directory = certified_checkpoint(tmp_path / "c", {})
    assert load_window_offer(directory) is None
    path = directory / "config.json"
    config = json.loads(path.read_text())
    text = {**config["text_config"], "sliding_window": 512}
    path.write_text(json.dumps({**config, "text_config": text}))
    assert load_window_offer(directory) == WindowOffer(least=512, sink_tokens=0)
    allow(directory, {"least": 256})
    assert load_window_offer(directory) == WindowOffer(least=256, sink_tokens=SINK_TOKENS)
    allow(directory, {"least": 0})
    with pytest.raises(CheckpointError, match=r"exits\.json: attention_window\.least is 0"):
        load_window_offer(directory)


@pytest.mark.parametrize("threads", [1, 2])
def test_cpu_kernels_read_what_the_mask_shows(threads: int) -> None:
    heads, groups, size, block = 4, 2, 16, 4
    config = TextConfig(
        vocab_size=8,
        hidden_size=heads * size,
        intermediate_size=8,
        num_layers=1,
        num_heads=heads,
        num_kv_heads=groups,
        max_positions=64,
        rms_norm_eps=1e-5,
        rope_theta=1e4,
        rotary_dim=size,
        mrope_section=(2, 3, 3),
        tie_word_embeddings=False,
    )
    cache = KVCache(config, 96, block, torch.float32, torch.device("cpu"), poison=1e30)
    generator = torch.Generator().manual_seed(1)
    # (tokens before, tokens of this step, window, sink, blocks given back): decoding, a verification, prompts.
    cases = [
        (39, 1, 9, 5, 5),
        (39, 4, 9, 5, 5),
        (0, 40, 7, 2, 0),
        (0, 9, 3, 1, 0),
        (30, 1, None, 0, 0),
        (38, 1, 2, 40, 0),
    ]
    rows: list[Row] = []
    fresh: list[torch.Tensor] = []
    expected: list[torch.Tensor] = []
    for number, (before, count, tokens, sink, num_given) in enumerate(cases):
        length = before + count
        q = torch.randn(length, heads, size, generator=generator)
        k, v = torch.randn(2, length, groups, size, generator=generator)
        window = None if tokens is None else AttentionWindow(tokens=tokens, sink_tokens=sink)
        sequence = Sequence(
            tag=str(number),
            index=0,
            prompt=Prompt(ids=(1,) * length, positions_3T=np.zeros((3, length), dtype=np.int64), rope_delta=0),
            sampling=GREEDY,
            segments=((0, 1),),
            max_tokens=1,
            stop_ids=frozenset(),
            emit=lambda event: None,
            window=window,
        )
        table: list[int | None] = [len(cases) * place + number for place in range(-(-length // block))]
        for at in range(before):
            slot = (int(table[at // block] or 0), at % block)
            cache.keys[0][slot], cache.values[0][slot] = k[at], v[at]
        first = -(-sink // block)
        for place in range(first, first + num_given):
            cache.keys[0][table[place]] = cache.values[0][table[place]] = float("nan")
            table[place] = None
        sequence.blocks, sequence.kv_len = [table], [before]
        rows.append(Row(sequence=sequence, start=before, count=count))
        fresh.append(torch.cat([part[before:].flatten(1) for part in (q, k, v)], dim=1))
        dense = masked_attend(sees(length, tokens, sink))(0, q.double(), k.double(), v.double())
        expected.append(dense[before:].flatten(1))
    qkv = torch.cat(fresh)
    out = torch.empty(len(qkv), heads * size)
    cos, sin = np.ones((len(qkv), size // 2), dtype=np.float32), np.zeros((len(qkv), size // 2), dtype=np.float32)
    used = torch.get_num_threads()
    torch.set_num_threads(threads)
    paged_attend(cache, segment_tables(rows, 0, block)).fused(0, qkv, cos, sin, out)
    torch.set_num_threads(used)
    torch.testing.assert_close(out.double(), torch.cat(expected), rtol=1e-4, atol=1e-5)

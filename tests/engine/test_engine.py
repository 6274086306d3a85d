"""The engine against transformers' greedy generation, alone and under every kind of batching pressure."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.random_checkpoint import IMAGE_ID, Shape, random_checkpoint

from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.service import DecoderService
from autoglm_backend.models.config import load_model_config
from autoglm_backend.models.decoder import TextDecoder, causal_attend
from autoglm_backend.models.exits import ExitHeads, load_exit_heads
from autoglm_backend.models.shards import checkpoint_shards, text_name
from autoglm_backend.models.weights import load_module
from autoglm_protocol.errors import InvalidRequestError, OverloadedError
from autoglm_protocol.events import Cancelled, ChoiceFinished, Finished, StreamEvent, TokenDelta
from autoglm_protocol.plan import ExecutionPlan, ExitMode
from autoglm_protocol.sampling import SamplingParams
from autoglm_protocol.wire import DecodeRequest

GREEDY = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)


class Stream:
    """Collects one request's events and waits for its terminal one."""

    def __init__(self) -> None:
        self.events: list[StreamEvent] = []
        self.first_token = threading.Event()
        self._done = threading.Event()

    def __call__(self, event: StreamEvent) -> None:
        self.events.append(event)
        if isinstance(event, TokenDelta):
            self.first_token.set()
        else:
            self._done.set()

    def ids(self) -> list[int]:
        assert self._done.wait(60)
        return [t for e in self.events if isinstance(e, TokenDelta) for t in e.token_ids]

    def end(self) -> StreamEvent:
        assert self._done.wait(60)
        return self.events[-1]


def ask(
    tag: str,
    ids: np.ndarray,
    *,
    depth: int | None = None,
    exit_mode: ExitMode = ExitMode.FIXED,
    sampling: SamplingParams = GREEDY,
    **media: Any,
) -> DecodeRequest:
    plan = None
    if depth is not None or exit_mode is not ExitMode.FIXED:
        plan = ExecutionPlan(
            enabled=True,
            run_vision=False,
            run_speech=False,
            num_layers=4,
            depth=depth or 4,
            exit_mode=exit_mode,
            reason="",
        )
    return DecodeRequest(tag=tag, prompt_ids=ids, sampling=sampling, plan=plan, **media)


def prompt(length: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, 70, length).astype(np.int32)


def add_exits(directory: Path, depths: list[int]) -> None:
    heads = ExitHeads(load_model_config(directory).text, depths, adapter_size=8)
    torch.manual_seed(3)
    for parameter in heads.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    (directory / "exits").mkdir()
    (directory / "exits" / "exits.json").write_text(json.dumps({"depths": depths, "adapter_size": 8}))
    save_file(heads.state_dict(), directory / "exits" / "exits.safetensors")


def service(directory: Path, **options) -> DecoderService:
    return DecoderService.from_checkpoint(directory, EngineOptions(device="cpu", threads=1, **options))


def dense_greedy(directory: Path, ids: np.ndarray, depth: int, count: int) -> list[int]:
    """The reference: the whole sequence recomputed for every token, no cache, no batch."""
    config = load_model_config(directory)
    decoder = TextDecoder(config.text)
    load_module(decoder, checkpoint_shards(directory), text_name)
    exits = load_exit_heads(directory, config.text)
    tokens = ids.tolist()
    with torch.no_grad():
        for _ in range(count):
            rotation = decoder.rotation(torch.arange(len(tokens)).expand(3, -1))
            hidden = decoder.run_span(0, depth, decoder.embed_tokens(torch.tensor(tokens)), rotation, causal_attend)
            last = hidden[-1:]
            normed = decoder.norm(last) if exits is None or depth == 4 else exits(depth, last)
            tokens.append(int(decoder.lm_head(normed).argmax()))
    return tokens[len(ids) :]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoint")
    random_checkpoint(directory, Shape())
    add_exits(directory, [1, 2])
    return directory


def test_greedy_ids_equal_transformers_over_64_tokens(tmp_path: Path) -> None:
    reference = random_checkpoint(tmp_path, Shape())
    ids = prompt(17, 1)
    with torch.no_grad():
        expected = reference.generate(
            torch.from_numpy(ids).long()[None],
            do_sample=False,
            max_new_tokens=64,
            eos_token_id=None,
            use_cache=True,
            mm_token_type_ids=torch.zeros(1, 17, dtype=torch.int32),
        )[0, 17:].tolist()
    engine, stream = service(tmp_path), Stream()
    engine.add(ask("a", ids, sampling=SamplingParams(temperature=0.0, max_tokens=64, ignore_eos=True)), stream)
    assert stream.ids() == expected
    engine.shutdown()


def test_images_take_the_positions_that_transformers_gives_them(tmp_path: Path) -> None:
    reference = random_checkpoint(tmp_path, Shape())
    grids = [(2, 3), (4, 1)]
    ids = np.array([5, 91, *[IMAGE_ID] * 6, 92, 9, 91, *[IMAGE_ID] * 4, 92, 33, 34], dtype=np.int32)
    patches = torch.randn(40, reference.config.vision_config.patch_size**2 * 6)
    grid_thw = torch.tensor([(1, 4, 6), (1, 8, 2)])
    types = torch.from_numpy((ids == IMAGE_ID).astype(np.int32))[None]
    with torch.no_grad():
        embeddings = reference.model.visual(patches, grid_thw=grid_thw).pooler_output
        expected = reference.generate(
            torch.from_numpy(ids).long()[None],
            pixel_values=patches,
            image_grid_thw=grid_thw,
            mm_token_type_ids=types,
            do_sample=False,
            max_new_tokens=12,
            eos_token_id=None,
        )[0, len(ids) :].tolist()
    engine, stream = service(tmp_path, max_step_tokens=7), Stream()
    sampling = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
    engine.add(ask("a", ids, sampling=sampling, image_grids=tuple(grids), embeddings_MD=embeddings.numpy()), stream)
    assert stream.ids() == expected
    engine.shutdown()


@pytest.mark.parametrize(
    "pressure",
    [
        pytest.param({}, id="plain batch"),
        pytest.param({"max_step_tokens": 5}, id="chunked prefill"),
        pytest.param({"kv_cache_tokens": 96, "block_tokens": 4}, id="preemption"),
        pytest.param({"dynamic_batching": False}, id="one at a time"),
        pytest.param({"prefix_cache": False}, id="no prefix cache"),
    ],
)
def test_a_mixed_batch_gives_what_each_row_gives_alone(checkpoint: Path, pressure: dict) -> None:
    engine = service(checkpoint, **pressure)
    shared = prompt(9, 5)
    rows = [(np.concatenate((shared, prompt(3 + i, i))), depth) for i, depth in enumerate([4, 1, 2, 4, 1])]
    streams = [Stream() for _ in rows]
    for i, ((ids, depth), stream) in enumerate(zip(rows, streams, strict=True)):
        engine.add(ask(f"r{i}", ids, depth=depth), stream)
    answers = [stream.ids() for stream in streams]
    stats = engine.stats()
    engine.shutdown()
    assert answers == [dense_greedy(checkpoint, ids, depth, 24) for ids, depth in rows]
    assert stats.kv_usage == 0.0
    if "block_tokens" in pressure:
        assert stats.num_preemptions > 0


def test_layer_steps_are_the_sum_of_what_each_row_asked_for(checkpoint: Path) -> None:
    engine = service(checkpoint, prefix_cache=False)
    streams = {depth: Stream() for depth in (1, 2, 4)}
    for depth, stream in streams.items():
        engine.add(ask(f"d{depth}", prompt(10, depth), depth=depth), stream)
    for depth, stream in streams.items():
        end = stream.end()
        assert isinstance(end, Finished)
        # The last sampled token is never run itself.
        assert end.dynamic_graph["layer_steps"] == depth * (10 + 24 - 1)
        assert end.dynamic_graph["layers_run"] == {str(depth): 24}
    engine.shutdown()


def test_a_repeated_prompt_is_served_from_the_prefix_cache(checkpoint: Path) -> None:
    engine = service(checkpoint, block_tokens=4)
    ids = prompt(18, 2)
    first, second = Stream(), Stream()
    engine.add(ask("one", ids), first)
    answer = first.ids()
    engine.add(ask("two", ids), second)
    assert second.ids() == answer
    end = second.end()
    assert isinstance(end, Finished)
    assert end.usage.cached_tokens == 16
    engine.shutdown()


def test_equal_text_over_another_image_is_another_prefix(checkpoint: Path) -> None:
    engine = service(checkpoint, block_tokens=2)
    ids = np.array([5, 91, *[IMAGE_ID] * 4, 92, 9, 10, 11], dtype=np.int32)
    rng = np.random.default_rng(0)
    answers = []
    for tag in ("cat", "dog"):
        stream = Stream()
        pixels = rng.standard_normal((4, 64)).astype(np.float32)
        engine.add(ask(tag, ids, image_grids=((2, 2),), embeddings_MD=pixels, media_hashes=(tag.encode(),)), stream)
        answers.append(stream.ids())
        end = stream.end()
        assert isinstance(end, Finished)
        # Only the token before the picture (and not its whole block) is equal.
        assert end.usage.cached_tokens <= 2
    engine.shutdown()
    assert answers[0] != answers[1]


def test_abort_frees_the_blocks_and_ends_in_cancelled(checkpoint: Path) -> None:
    engine, stream = service(checkpoint), Stream()
    engine.add(
        ask("gone", prompt(8, 0), sampling=SamplingParams(temperature=0.0, max_tokens=400, ignore_eos=True)), stream
    )
    assert stream.first_token.wait(60)
    engine.abort("gone")
    assert isinstance(stream.end(), Cancelled)
    assert engine.stats().num_running == 0
    assert engine.stats().kv_usage == 0.0
    engine.shutdown()


def test_a_full_queue_refuses_the_next_request(checkpoint: Path) -> None:
    engine = service(checkpoint, max_batch_size=1, max_waiting=1)
    long = SamplingParams(temperature=0.0, max_tokens=400, ignore_eos=True)
    running = Stream()
    engine.add(ask("a", prompt(4, 0), sampling=long), running)
    assert running.first_token.wait(60)
    engine.add(ask("b", prompt(4, 1), sampling=long), Stream())
    with pytest.raises(OverloadedError, match="at most 1"):
        engine.add(ask("c", prompt(4, 2), sampling=long), Stream())
    engine.shutdown()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"prompt_ids": np.array([97], dtype=np.int32)}, "prompt_ids"),
        ({"prompt_ids": np.zeros(0, dtype=np.int32)}, "prompt_ids"),
        ({"prompt_ids": np.array([IMAGE_ID], dtype=np.int32)}, "image_grids"),
        ({"embeddings_MD": np.zeros((3, 64), dtype=np.float32)}, "embeddings"),
        ({"prompt_ids": np.full(512, 5, dtype=np.int32)}, "messages"),
        ({"sampling": SamplingParams(logit_bias={400: 1.0})}, "logit_bias"),
    ],
)
def test_a_bad_request_names_its_field(checkpoint: Path, change: dict, field: str) -> None:
    engine = service(checkpoint)
    with pytest.raises(InvalidRequestError) as refusal:
        engine.add(DecodeRequest(**{"tag": "x", "prompt_ids": prompt(4, 0), **change}), Stream())
    engine.shutdown()
    assert refusal.value.param == field


def test_the_same_seed_draws_the_same_tokens_alone_and_in_a_batch(checkpoint: Path) -> None:
    engine = service(checkpoint)
    sampling = SamplingParams(temperature=1.2, top_p=0.9, seed=11, max_tokens=30, ignore_eos=True)
    alone, crowded, other = Stream(), Stream(), Stream()
    engine.add(ask("alone", prompt(6, 4), sampling=sampling), alone)
    expected = alone.ids()
    engine.add(ask("other", prompt(5, 9), sampling=SamplingParams(seed=1, max_tokens=60, ignore_eos=True)), other)
    engine.add(ask("crowded", prompt(6, 4), sampling=sampling), crowded)
    assert crowded.ids() == expected
    other.end()
    engine.shutdown()


def test_every_choice_says_why_it_ended(checkpoint: Path) -> None:
    engine = service(checkpoint)
    events: list[StreamEvent] = []
    done = threading.Event()

    def emit(event: StreamEvent) -> None:
        events.append(event)
        if isinstance(event, Finished):
            done.set()

    engine.add(ask("n", prompt(5, 1), sampling=SamplingParams(seed=2, n=3, max_tokens=6, ignore_eos=True)), emit)
    assert done.wait(60)
    engine.shutdown()
    assert sorted(e.index for e in events if isinstance(e, ChoiceFinished)) == [0, 1, 2]
    assert isinstance(events[-1], Finished)

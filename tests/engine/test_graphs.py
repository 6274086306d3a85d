"""Graphs without a GPU: buckets, buffers and padding are exact when the capture is replaced by repeating the work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.engine.depth_world import POISON, certified_checkpoint
from tests.engine.test_engine import Stream, ask, prompt

from autoglm_backend.engine.graphs import TOKEN_BUCKETS, Capture, CudaCapture, GraphKey, SpanGraphs, graph_key
from autoglm_backend.engine.kv_cache import KVCache
from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.service import DecoderService
from autoglm_backend.engine.step_tables import RowSpan, SegmentTables
from autoglm_protocol.plan import ExitMode
from autoglm_protocol.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0.0, max_tokens=20, ignore_eos=True)
MODES = ((ExitMode.FIXED, 4), (ExitMode.FIXED, 1), (ExitMode.LOSSLESS, 4), (ExitMode.CERTIFIED, 4))


class Counting(Capture):
    def __init__(self, bytes_each: int = 0) -> None:
        self.bytes_each = bytes_each
        self.num_captured = 0

    def __call__(self, work):
        self.num_captured += 1
        self.bytes_used += self.bytes_each
        return work


def step(tokens: int, blocks: int) -> SegmentTables:
    zeros = np.zeros(tokens, dtype=np.int64)
    return SegmentTables(
        rows=(RowSpan(0, tokens),),
        blocks_BN=np.zeros((1, blocks), dtype=np.int64),
        row_T=zeros,
        position_T=zeros,
        slots_T=zeros,
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certified_checkpoint(tmp_path_factory.mktemp("depths"), {1: 0.5, 2: 0.5})


def answers(directory: Path, capture: Capture | None, max_bytes: int = 1) -> tuple[list[list[int]], SpanGraphs | None]:
    """Several prompts in every exit mode at once."""
    engine = DecoderService.from_checkpoint(
        directory,
        EngineOptions(
            device="cpu",
            dtype="float64",
            threads=1,
            kv_cache_tokens=512,
            block_tokens=8,
            max_step_tokens=32,
            shadow_share=0.0,
        ),
    )
    spans = engine._engine._runner.spans  # type: ignore[attr-defined]
    graphs = None
    if capture is not None:
        config = spans.decoder.config
        # One block more than the block manager gives out; poisoned slots betray a read of what nobody wrote.
        spans.cache = KVCache(config, 65, 8, torch.float64, torch.device("cpu"), poison=POISON)
        for tensor in (*spans.cache.keys, *spans.cache.values):
            tensor[-1] = 0.0
        graphs = SpanGraphs(spans.decoder.run_layers, config, spans.cache, capture, max_bytes=max_bytes)
        spans.decoder.prepared = graphs
    streams = [Stream() for _ in MODES]
    for number, (stream, (mode, depth)) in enumerate(zip(streams, MODES, strict=True)):
        engine.add(ask(f"r{number}", prompt(21, number), depth=depth, exit_mode=mode, sampling=GREEDY), stream)
    ids = [stream.ids() for stream in streams]
    engine.shutdown()
    return ids, graphs


def test_padded_steps_over_fixed_buffers_give_the_same_tokens_in_every_exit_mode(directory: Path) -> None:
    capture = Counting()
    ids, graphs = answers(directory, capture)
    assert ids == answers(directory, None)[0]
    assert graphs is not None
    assert 3 <= capture.num_captured == graphs.num_graphs


def test_no_graph_is_captured_beyond_the_memory_bound(directory: Path) -> None:
    capture = Counting(bytes_each=100)
    ids, _ = answers(directory, capture, max_bytes=150)
    assert capture.num_captured == 2
    assert ids == answers(directory, None)[0]


def test_a_step_takes_the_smallest_bucket_that_holds_it() -> None:
    assert graph_key(6, 12, step(5, 3), 1000) == GraphKey(6, 12, 8, 8)
    assert graph_key(0, 6, step(8, 9), 1000) == GraphKey(0, 6, 8, 16)


def test_a_bucket_has_no_more_blocks_than_the_cache() -> None:
    assert graph_key(0, 6, step(1, 90), 100) == GraphKey(0, 6, 1, 100)


def test_a_large_step_has_no_graph() -> None:
    assert graph_key(0, 6, step(TOKEN_BUCKETS[-1] + 1, 3), 1000) is None


@pytest.mark.gpu
def test_a_replayed_cuda_graph_equals_the_work_that_it_captured() -> None:
    source = torch.arange(8.0, device="cuda")
    replay = CudaCapture()(lambda: source * 2 + 1)
    source.copy_(torch.full((8,), 5.0, device="cuda"))
    assert replay().tolist() == [11.0] * 8


@pytest.mark.gpu
def test_answers_on_a_gpu_are_the_same_with_and_without_graphs(directory: Path) -> None:
    ids: list[list[int]] = []
    for cuda_graphs in (True, False):
        engine = DecoderService.from_checkpoint(
            directory, EngineOptions(device="cuda", dtype="float32", kv_cache_tokens=1024, cuda_graphs=cuda_graphs)
        )
        stream = Stream()
        engine.add(ask("a", prompt(21, 1), exit_mode=ExitMode.LOSSLESS, sampling=GREEDY), stream)
        ids.append(stream.ids())
        engine.shutdown()
    assert ids[0] == ids[1]

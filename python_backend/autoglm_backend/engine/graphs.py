"""CUDA graphs of small steps: a segment's hundreds of kernel launches become one.

A graph stands for a segment, a bucket of tokens and a bucket of context blocks. It is captured the first time that such
a step comes, over buffers of its own that keep their addresses; tokens that a step has too few of are padding, whose
keys and values go to a block that nobody owns. Every token counts as a row of its own, so a pass that verifies drafts
is as good as one that decodes. Large steps (prefill) run as they are: their kernels outweigh their launches.

Shape legend: T tokens of a step, B the bucket's tokens, N the bucket's blocks, S block size, L = N * S, D hidden,
R rotary dimension.
"""

from __future__ import annotations

import bisect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from autoglm_backend.engine.eager_attention import EagerTables, token_mask
from autoglm_backend.engine.kv_cache import KVCache, PagedAttention
from autoglm_backend.engine.step_tables import SegmentTables
from autoglm_backend.models.config import TextConfig
from autoglm_backend.models.decoder import RunSpan
from autoglm_backend.models.layers import Rotation

TOKEN_BUCKETS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
FEWEST_BLOCKS = 8
"""Of a bucket; they double from here."""
MAX_BYTES = 2 << 30
"""Memory that graphs may take together; steps of shapes that come later run without."""

log = logging.getLogger(__name__)


class Capture:
    """Turns work over fixed buffers into something to replay. This one only repeats it: the reference."""

    bytes_used = 0

    def __call__(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        return work


class CudaCapture(Capture):
    """Captures CUDA graphs that share one memory pool, which is safe because they never run at the same time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        before = torch.cuda.memory_reserved()
        # Libraries allocate their workspaces at a first call, which must not happen inside a capture.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            out = work()
        self.bytes_used += max(0, torch.cuda.memory_reserved() - before)

        def replay() -> Tensor:
            graph.replay()
            return out

        return replay


class GraphKey(NamedTuple):
    first: int
    last: int
    tokens: int
    blocks: int


def graph_key(first: int, last: int, tables: SegmentTables, num_blocks: int) -> GraphKey | None:
    """The smallest bucket that holds this step, None for a step that is too large. num_blocks: the whole cache's."""
    tokens = len(tables.position_T)
    at = bisect.bisect_left(TOKEN_BUCKETS, tokens)
    if at == len(TOKEN_BUCKETS):
        return None
    blocks = FEWEST_BLOCKS
    while blocks < tables.blocks_BN.shape[1]:
        blocks *= 2
    return GraphKey(first, last, TOKEN_BUCKETS[at], min(blocks, num_blocks))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Graph:
    hidden_BD: Tensor
    angles_2BR: Tensor
    eager: EagerTables
    replay: Callable[[], Tensor]


class SpanGraphs:
    """A `RunSpan` that replays graphs where it can, over a cache whose last block no sequence owns."""

    def __init__(
        self, run: RunSpan, config: TextConfig, cache: KVCache, capture: Capture, *, max_bytes: int = MAX_BYTES
    ) -> None:
        self._run = run
        self._config = config
        self._cache = cache
        self._capture = capture
        self._max_bytes = max_bytes
        self._graphs: dict[GraphKey, _Graph] = {}
        self._is_full = False

    @property
    def num_graphs(self) -> int:
        return len(self._graphs)

    def __call__(self, first: int, last: int, hidden_TD: Tensor, rotation: Rotation, attend: PagedAttention) -> Tensor:
        tables = attend.tables
        key = None if attend.is_sparse else graph_key(first, last, tables, len(self._cache.keys[0]))
        graph = None if key is None else self._graphs.get(key)
        if graph is None and key is not None and not self._is_full:
            graph = self._graphs[key] = self._captured(key)
            self._is_full = self._capture.bytes_used >= self._max_bytes
            if self._is_full:
                log.warning("CUDA graphs have taken their %d MiB, new shapes run without", self._max_bytes >> 20)
        if graph is None:
            return self._run(first, last, hidden_TD, rotation, attend)
        self._fill(graph, hidden_TD, rotation, tables)
        # The buffer is overwritten by the next replay, the caller may keep states for steps.
        return graph.replay()[: len(hidden_TD)].clone()

    def _captured(self, key: GraphKey) -> _Graph:
        keys, config = self._cache.keys[0], self._config
        device, dtype = keys.device, keys.dtype
        scratch, block_tokens = len(keys) - 1, self._cache.block_tokens
        hidden_BD = torch.zeros((key.tokens, config.hidden_size), dtype=dtype, device=device)
        angles_2BR = torch.zeros((2, key.tokens, config.rotary_dim // 2), dtype=torch.float32, device=device)
        mask_BL = torch.zeros((key.tokens, key.blocks * block_tokens), dtype=dtype, device=device)
        eager = EagerTables(
            write_slots_T=torch.full((key.tokens,), scratch * block_tokens, device=device),
            decode_tokens_B=None,
            decode_blocks_BN=torch.full((key.tokens, key.blocks), scratch, device=device),
            decode_mask_B11L=mask_BL[:, None, None],
            prefills=[],
        )
        nothing = np.zeros(0, dtype=np.int64)
        tables = SegmentTables(rows=(), blocks_BN=nothing[None], row_T=nothing, position_T=nothing, slots_T=nothing)
        attend = PagedAttention(self._cache, tables, eager)
        rotation = Rotation(angles_2BR[0], angles_2BR[1])
        replay = self._capture(lambda: self._run(key.first, key.last, hidden_BD, rotation, attend))
        return _Graph(hidden_BD=hidden_BD, angles_2BR=angles_2BR, eager=eager, replay=replay)

    def _fill(self, graph: _Graph, hidden_TD: Tensor, rotation: Rotation, tables: SegmentTables) -> None:
        """Copy the step into the buffers; padding sees and overwrites the scratch block only."""
        tokens, eager = len(hidden_TD), graph.eager
        device, dtype = hidden_TD.device, hidden_TD.dtype
        scratch = len(self._cache.keys[0]) - 1
        graph.hidden_BD[:tokens] = hidden_TD
        graph.angles_2BR[0, :tokens] = rotation.cos
        graph.angles_2BR[1, :tokens] = rotation.sin
        eager.write_slots_T[:tokens] = torch.from_numpy(tables.slots_T).to(device)
        eager.write_slots_T[tokens:] = scratch * self._cache.block_tokens
        blocks_TN = torch.from_numpy(tables.blocks_BN[tables.row_T]).to(device)
        eager.decode_blocks_BN[:tokens, : blocks_TN.shape[1]] = blocks_TN
        # Places beyond a row's blocks are masked, and the scratch block holds numbers only.
        eager.decode_blocks_BN[:tokens, blocks_TN.shape[1] :] = scratch
        eager.decode_blocks_BN[tokens:] = scratch
        num_places = eager.decode_mask_B11L.shape[-1]
        eager.decode_mask_B11L[:tokens, 0, 0] = token_mask(tables, np.arange(tokens), num_places, device, dtype)
        eager.decode_mask_B11L[tokens:] = 0.0

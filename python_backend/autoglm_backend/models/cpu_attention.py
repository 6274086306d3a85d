"""Attention of a step's tokens over a paged cache on a CPU: each token reads just the keys and values it may see.

Compiled by numba for a model's head sizes, so that the inner loops have fixed lengths. Token and KV head are the unit
of work; each is computed by one thread in a fixed order, so results depend neither on the batch nor on the threads.

Shape legend: N tokens, H heads, G KV heads, d head dimension, S block size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import cfunc, njit, types
from numba.np.numpy_support import carray
from torch import Tensor

from autoglm_backend.models.cpu_attention_tiles import add_values, heads_at_once, keys_at_once, score_keys
from autoglm_backend.models.cpu_kernels import (
    F32,
    INLINE,
    exp,
    kind_of,
    narrow,
    pointer_at,
    rotate_and_store,
    wide,
)
from autoglm_backend.models.cpu_threads import ALONE, part_of, together

PARALLEL_FROM = 4096
"""Query heads times keys from which a second thread is worth waking, about 10 microseconds of work."""
NUM_ARGUMENTS = 14


_LONGS = np.empty(0, dtype=np.int64)


@njit(**INLINE)
def _longs(address: int, shape: Any) -> Any:
    return carray(pointer_at(address, _LONGS), shape)


@njit(**INLINE)
def _slot(blocks: Any, row: int, j: int, sink: int, unseen: int, block_tokens: int) -> int:
    """Where the j-th key that a token sees stands in the cache: behind the first `sink` some are not seen."""
    if j >= sink:
        j += unseen
    return blocks[row, j // block_tokens] * block_tokens + j % block_tokens


@njit(**INLINE)
def _softmax(x: Any, length: int) -> None:
    most = x[0]
    for j in range(length):
        most = max(most, x[j])
    for j in range(length):
        x[j] = exp(x[j] - most)
    mass = F32(0.0)
    for j in range(length):
        mass += x[j]
    inverse = F32(1.0) / mass
    for j in range(length):
        x[j] *= inverse


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadShape:
    heads: int
    groups: int
    head_dim: int
    block_tokens: int


@cache
def attention_kernel(shape: HeadShape, dtype: torch.dtype) -> int:
    """Address of `void f(int64_t *arguments)`, compiled for these sizes or taken from numba's cache on disk."""
    # Numbers and an array only: numba's cache finds a closure again by the bytes of what it closes over.
    kind = kind_of(dtype)
    heads, groups, head_dim, block_tokens = shape.heads, shape.groups, shape.head_dim, shape.block_tokens
    share = heads // groups
    at_once, together, item_bytes = keys_at_once(head_dim), heads_at_once(head_dim, share), kind.itemsize

    @cfunc(types.void(types.CPointer(types.int64)), cache=True)
    def attend(pointer: Any) -> None:
        arguments = carray(pointer, NUM_ARGUMENTS)
        part, parts = part_of(arguments[10], arguments[11])
        q_p, out_p = pointer_at(arguments[0], kind), pointer_at(arguments[1], kind)
        count = arguments[7]
        lengths, rows = _longs(arguments[4], (count,)), _longs(arguments[5], (count,))
        blocks = _longs(arguments[6], (arguments[8], arguments[9]))
        sinks, unseens = _longs(arguments[12], (count,)), _longs(arguments[13], (count,))
        scale = F32(1.0) / np.sqrt(F32(head_dim))
        longest = work = 0
        for length in lengths:
            longest = max(longest, length)
            work += length * groups
        scores = np.empty((share, longest + at_once), dtype=np.float32)
        offsets = np.empty(longest + at_once, dtype=np.int64)
        query = np.empty((share, head_dim), dtype=np.float32)
        total = np.empty((share, head_dim), dtype=np.float32)
        row_bytes = 4 * (longest + at_once)
        done = 0
        for token in range(count):
            length, row, sink, unseen = lengths[token], rows[token], sinks[token], unseens[token]
            has_offsets = False
            for group in range(groups):
                whose = (2 * done + length) * parts // (2 * work)
                done += length
                if whose != part or length == 0:
                    continue
                if not has_offsets:
                    for j in range(length):
                        slot = _slot(blocks, row, j, sink, unseen, block_tokens)
                        offsets[j] = slot * groups * head_dim * item_bytes
                    # Beyond the last key the last one is read again; its extra scores are never used.
                    for j in range(length, length + at_once):
                        offsets[j] = offsets[length - 1]
                    has_offsets = True
                start = token * (heads + 2 * groups) * head_dim + group * share * head_dim
                for h in range(share):
                    for i in range(head_dim):
                        query[h, i] = wide(q_p[start + h * head_dim + i]) * scale
                of_group = group * head_dim * item_bytes
                for j in range(0, length, at_once):
                    score_keys(
                        kind,
                        head_dim,
                        query.ctypes.data,
                        share,
                        arguments[2] + of_group,
                        offsets.ctypes.data + 8 * j,
                        scores.ctypes.data + 4 * j,
                        row_bytes,
                    )
                for h in range(share):
                    _softmax(scores[h], length)
                for h in range(0, share, together):
                    add_values(
                        kind,
                        head_dim,
                        together,
                        scores.ctypes.data + h * row_bytes,
                        row_bytes,
                        share - 1 - h,
                        arguments[3] + of_group,
                        offsets.ctypes.data,
                        length,
                        total.ctypes.data + 4 * h * head_dim,
                    )
                to = token * heads * head_dim + group * share * head_dim
                for h in range(share):
                    for i in range(head_dim):
                        out_p[to + h * head_dim + i] = narrow(total[h, i], kind)

    address = attend.address
    assert address is not None
    return address


class PagedReader:
    """Rotation, storing and attention of one step's tokens, layer after layer: `find` for a segment, then its calls."""

    def __init__(
        self,
        shape: HeadShape,
        dtype: torch.dtype,
        *,
        positions_T: np.ndarray,
        unseen_T: tuple[np.ndarray, np.ndarray],
        rows_T: np.ndarray,
    ) -> None:
        """All int64.

        positions_T: a token's place in its row; it sees the keys up to there but for those of unseen_T (first, count).
        rows_T: its row of the blocks.
        """
        first_T, count_T = unseen_T
        lengths_T = positions_T + 1 - count_T
        self._shape = shape
        self._kind = kind_of(dtype)
        self._kernel = attention_kernel(shape, dtype)
        self._places = np.stack((lengths_T, rows_T, first_T, count_T))  # the kernel reads them by address
        self._slots_T = self._blocks_BN = np.empty((0, 0), dtype=np.int64)
        seen = int(lengths_T.sum())
        self._team = together() if seen * shape.heads >= PARALLEL_FROM else ALONE
        lengths, rows, first, count = (self._places.ctypes.data + 8 * len(lengths_T) * i for i in range(4))
        self._arguments = np.array(
            [
                *(0, 0, 0, 0),
                *(lengths, rows, 0, len(lengths_T), 0, 0),
                *(self._team.thread_num, self._team.num_threads),
                *(first, count),
            ],
            dtype=np.int64,
        )
        self._address = self._arguments.ctypes.data
        self._sees_anything = seen > 0

    def find(self, *, slots_T: np.ndarray, blocks_BN: np.ndarray) -> None:
        """Where a segment keeps them, int64 and contiguous.

        slots_T: where each token's key goes in the cache. blocks_BN: each row's blocks.
        """
        self._slots_T, self._blocks_BN = slots_T, blocks_BN
        arguments = self._arguments
        arguments[6], arguments[8], arguments[9] = blocks_BN.ctypes.data, *blocks_BN.shape

    def __call__(self, qkv: Tensor, cos: np.ndarray, sin: np.ndarray, out: Tensor, keys: int, values: int) -> None:
        """Turn queries and keys of qkv [T, (H + 2G) * d] in place, store, attend: out [T, H * d].

        keys, values: addresses of the layer's cache [blocks, S, G, d]. cos, sin: float32 [T, R/2].
        """
        shape, qkv_at = self._shape, qkv.data_ptr()
        rotate_and_store(
            self._kind, qkv_at, cos, sin, self._slots_T, keys, values, shape.heads, shape.groups, shape.head_dim
        )
        if not self._sees_anything:
            return
        arguments = self._arguments
        arguments[0], arguments[1], arguments[2], arguments[3] = qkv_at, out.data_ptr(), keys, values
        self._team.run(self._kernel, self._address)

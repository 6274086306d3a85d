"""Attention of a step's tokens over a paged cache on a CPU: each token reads just the keys and values it may see.

Compiled by numba for a model's head sizes, so that the inner loops have fixed lengths. A run of a row's tokens and a KV
head are the unit of work. A prompt's tokens are scored together, on keys that are widened and turned once for all of
them; each score is still summed in the order in which a single token's is. So results depend neither on the batch, nor
on how a prompt is cut, nor on the threads.

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

from autoglm_backend.models.cpu_attention_tiles import (
    LARGEST_FROM,
    PACKED_KEYS,
    add_values,
    heads_at_once,
    keys_at_once,
    largest,
    queries_at_once,
    score_keys,
    score_packed_keys,
)
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
RUN_TOKENS = 32
PACKED_FROM = 64
"""Queries on one KV head from which widening and turning the keys once for all of them pays."""

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
def _run_end(start: int, count: int, rows: Any, sinks: Any, unseens: Any) -> int:
    """The end of the tokens from `start` on that see one row's keys in the same way."""
    end = start + 1
    last = min(count, start + RUN_TOKENS)
    while end < last and rows[end] == rows[start] and sinks[end] == sinks[start] and unseens[end] == unseens[start]:
        end += 1
    return end


@njit(**INLINE)
def _pack_keys(kind: Any, base: int, offsets: Any, first: int, head_dim: int, packed: Any) -> None:
    """packed[i, k] = the i-th number of key first + k, float32."""
    for k in range(PACKED_KEYS):
        key_p = pointer_at(base + offsets[first + k], kind)
        for i in range(head_dim):
            packed[i * PACKED_KEYS + k] = wide(key_p[i])


@njit(**INLINE)
def _softmax(x: Any, length: int) -> None:
    if length >= LARGEST_FROM:
        most = largest(x.ctypes.data, length)
    else:
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
    asked_together = queries_at_once(head_dim, share)

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
        longest = work = most_tokens = 0
        for length in lengths:
            longest = max(longest, length)
            work += length * groups
        first = 0
        while first < count:
            end = _run_end(first, count, rows, sinks, unseens)
            most_tokens, first = max(most_tokens, end - first), end
        room = longest + PACKED_KEYS
        scores = np.empty((most_tokens * share, room), dtype=np.float32)
        offsets = np.empty(room, dtype=np.int64)
        query = np.empty((most_tokens * share, head_dim), dtype=np.float32)
        total = np.empty((share, head_dim), dtype=np.float32)
        packed = np.empty(head_dim * PACKED_KEYS, dtype=np.float32)
        row_bytes = 4 * room
        done = first = 0
        while first < count:
            end = _run_end(first, count, rows, sinks, unseens)
            seen = run_work = 0
            for token in range(first, end):
                seen = max(seen, lengths[token])
                run_work += lengths[token]
            has_offsets = False
            for group in range(groups):
                whose = (2 * done + run_work) * parts // (2 * work)
                done += run_work
                if whose != part or seen == 0:
                    continue
                if not has_offsets:
                    for j in range(seen):
                        slot = _slot(blocks, rows[first], j, sinks[first], unseens[first], block_tokens)
                        offsets[j] = slot * groups * head_dim * item_bytes
                    # Beyond the last key the last one is read again; its extra scores are never used.
                    for j in range(seen, seen + PACKED_KEYS):
                        offsets[j] = offsets[seen - 1]
                    has_offsets = True
                of_group = group * head_dim * item_bytes
                for token in range(first, end):
                    start = token * (heads + 2 * groups) * head_dim + group * share * head_dim
                    for h in range(share):
                        for i in range(head_dim):
                            query[(token - first) * share + h, i] = wide(q_p[start + h * head_dim + i]) * scale
                if (end - first) * share >= PACKED_FROM:
                    for j in range(0, seen, PACKED_KEYS):
                        _pack_keys(kind, arguments[2] + of_group, offsets, j, head_dim, packed)
                        for token in range(first, end):
                            if j >= lengths[token]:
                                continue
                            for h in range(0, share, asked_together):
                                asked = (token - first) * share + h
                                score_packed_keys(
                                    head_dim,
                                    asked_together,
                                    query.ctypes.data + 4 * asked * head_dim,
                                    share - 1 - h,
                                    packed.ctypes.data,
                                    scores.ctypes.data + asked * row_bytes + 4 * j,
                                    row_bytes,
                                )
                else:
                    for token in range(first, end):
                        asked = (token - first) * share
                        for j in range(0, lengths[token], at_once):
                            score_keys(
                                kind,
                                head_dim,
                                query.ctypes.data + 4 * asked * head_dim,
                                share,
                                arguments[2] + of_group,
                                offsets.ctypes.data + 8 * j,
                                scores.ctypes.data + asked * row_bytes + 4 * j,
                                row_bytes,
                            )
                for token in range(first, end):
                    asked, length = (token - first) * share, lengths[token]
                    if length == 0:
                        continue
                    for h in range(share):
                        _softmax(scores[asked + h], length)
                    for h in range(0, share, together):
                        add_values(
                            kind,
                            head_dim,
                            together,
                            scores.ctypes.data + (asked + h) * row_bytes,
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
            first = end

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

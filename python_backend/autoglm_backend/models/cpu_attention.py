"""Attention of a step's tokens over a paged cache on a CPU: each token reads just the keys and values it may see.

Compiled by numba for a model's head sizes, so that the inner loops have fixed lengths. Token and KV head are the unit
of work; each is computed by one thread in a fixed order, so results depend neither on the batch nor on the threads.

Shape legend: N tokens, H heads, G KV heads, d head dimension, S block size.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import cfunc, njit, types
from numba.np.numpy_support import carray
from torch import Tensor

from autoglm_backend.models.cpu_kernels import (
    F32,
    INLINE,
    exp,
    intrinsic,
    kind_of,
    narrow,
    pointer_at,
    rotate_and_store,
    wide,
)

KEYS_AT_ONCE = 4
"""Unrolled by hand in the loops below."""
PARALLEL_FROM = 4096
"""Query heads times keys from which a second thread is worth waking, about 10 microseconds of work."""
NUM_ARGUMENTS = 14


@intrinsic
def _call(typingctx: Any, address: Any) -> tuple[Any, Callable[..., Any]]:
    """Call the C function `int f(void)` at this address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = ir.FunctionType(ir.IntType(32), ()).as_pointer()
        return builder.call(builder.inttoptr(args[0], pointer), ())

    return types.int32(types.int64), codegen


_LONGS = np.empty(0, dtype=np.int64)
_CALL = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


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

    @cfunc(types.void(types.CPointer(types.int64)), cache=True)
    def attend(pointer: Any) -> None:
        arguments = carray(pointer, NUM_ARGUMENTS)
        part, parts = 0, 1
        if arguments[10] != 0:
            part, parts = _call(arguments[10]), _call(arguments[11])
        q_p, out_p = pointer_at(arguments[0], kind), pointer_at(arguments[1], kind)
        keys_p, values_p = pointer_at(arguments[2], kind), pointer_at(arguments[3], kind)
        count = arguments[7]
        lengths, rows = _longs(arguments[4], (count,)), _longs(arguments[5], (count,))
        blocks = _longs(arguments[6], (arguments[8], arguments[9]))
        sinks, unseens = _longs(arguments[12], (count,)), _longs(arguments[13], (count,))
        scale = F32(1.0) / np.sqrt(F32(head_dim))
        longest = work = 0
        for length in lengths:
            longest = max(longest, length)
            work += length * groups
        scores = np.empty((share, longest + KEYS_AT_ONCE), dtype=np.float32)
        query = np.empty((share, head_dim), dtype=np.float32)
        total = np.empty((share, head_dim), dtype=np.float32)
        done = 0
        for token in range(count):
            length, row, sink, unseen = lengths[token], rows[token], sinks[token], unseens[token]
            for group in range(groups):
                whose = (2 * done + length) * parts // (2 * work)
                done += length
                if whose != part:
                    continue
                start = token * (heads + 2 * groups) * head_dim + group * share * head_dim
                for h in range(share):
                    for i in range(head_dim):
                        query[h, i] = wide(q_p[start + h * head_dim + i]) * scale
                        total[h, i] = F32(0.0)
                for j in range(0, length, KEYS_AT_ONCE):
                    # Beyond the last key the last one is read again; its extra scores are made 0 below.
                    last = length - 1
                    k0 = (_slot(blocks, row, j, sink, unseen, block_tokens) * groups + group) * head_dim
                    k1 = (_slot(blocks, row, min(j + 1, last), sink, unseen, block_tokens) * groups + group) * head_dim
                    k2 = (_slot(blocks, row, min(j + 2, last), sink, unseen, block_tokens) * groups + group) * head_dim
                    k3 = (_slot(blocks, row, min(j + 3, last), sink, unseen, block_tokens) * groups + group) * head_dim
                    for h in range(share):
                        q = query[h]
                        a = b = c = d = F32(0.0)
                        for i in range(head_dim):
                            a += q[i] * wide(keys_p[k0 + i])
                            b += q[i] * wide(keys_p[k1 + i])
                            c += q[i] * wide(keys_p[k2 + i])
                            d += q[i] * wide(keys_p[k3 + i])
                        scores[h, j], scores[h, j + 1], scores[h, j + 2], scores[h, j + 3] = a, b, c, d
                for h in range(share):
                    _softmax(scores[h], length)
                    for j in range(length, length + KEYS_AT_ONCE):
                        scores[h, j] = F32(0.0)
                for j in range(0, length, KEYS_AT_ONCE):
                    last = length - 1
                    k0 = (_slot(blocks, row, j, sink, unseen, block_tokens) * groups + group) * head_dim
                    k1 = (_slot(blocks, row, min(j + 1, last), sink, unseen, block_tokens) * groups + group) * head_dim
                    k2 = (_slot(blocks, row, min(j + 2, last), sink, unseen, block_tokens) * groups + group) * head_dim
                    k3 = (_slot(blocks, row, min(j + 3, last), sink, unseen, block_tokens) * groups + group) * head_dim
                    for h in range(share):
                        out = total[h]
                        a, b, c, d = scores[h, j], scores[h, j + 1], scores[h, j + 2], scores[h, j + 3]
                        for i in range(head_dim):
                            out[i] += (
                                a * wide(values_p[k0 + i])
                                + b * wide(values_p[k1 + i])
                                + c * wide(values_p[k2 + i])
                                + d * wide(values_p[k3 + i])
                            )
                to = token * heads * head_dim + group * share * head_dim
                for h in range(share):
                    for i in range(head_dim):
                        out_p[to + h * head_dim + i] = narrow(total[h, i], kind)

    address = attend.address
    assert address is not None
    return address


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenMP:
    """torch's own OpenMP library: its threads are awake between two products, others would have to be woken."""

    run: Callable[[int, int, int, int], None]
    thread_num: int
    num_threads: int


@cache
def find_openmp() -> OpenMP | None:
    """The libgomp that this process has loaded with torch; None where torch brings another OpenMP."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        paths = {line.split()[-1] for line in maps if "libgomp" in line}
    if len(paths) != 1:
        return None
    library = ctypes.CDLL(paths.pop())
    run = library.GOMP_parallel
    run.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    run.restype = None

    def address(name: str) -> int:
        return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0

    return OpenMP(run=run, thread_num=address("omp_get_thread_num"), num_threads=address("omp_get_num_threads"))


class PagedReader:
    """Rotation, storing and attention of one step's tokens in one segment, layer after layer."""

    def __init__(
        self,
        shape: HeadShape,
        dtype: torch.dtype,
        *,
        slots_T: np.ndarray,
        positions_T: np.ndarray,
        unseen_T: tuple[np.ndarray, np.ndarray],
        rows_T: np.ndarray,
        blocks_BN: np.ndarray,
    ) -> None:
        """All int64 and contiguous.

        slots_T: where each token's key goes in the cache. positions_T: its place in its row; it sees the keys up to
        there but for those of unseen_T (first, count). rows_T: its row of blocks_BN, which lists a sequence's blocks.
        """
        first_T, count_T = unseen_T
        lengths_T = positions_T + 1 - count_T
        self._shape = shape
        self._kind = kind_of(dtype)
        self._kernel = attention_kernel(shape, dtype)
        self._slots_T = slots_T
        self._kept = (lengths_T, rows_T, blocks_BN, first_T, count_T)  # the kernel reads them by address
        self._threads = torch.get_num_threads() if int(lengths_T.sum()) * shape.heads >= PARALLEL_FROM else 1
        openmp = find_openmp() if self._threads > 1 else None
        self._arguments = np.array(
            [
                *(0, 0, 0, 0),
                *(array.ctypes.data for array in self._kept[:3]),
                *(len(lengths_T), *blocks_BN.shape),
                *((0, 0) if openmp is None else (openmp.thread_num, openmp.num_threads)),
                *(array.ctypes.data for array in self._kept[3:]),
            ],
            dtype=np.int64,
        )
        self._address = self._arguments.ctypes.data
        self._openmp = openmp
        self._serial = _CALL(self._kernel)
        self._sees_anything = bool(lengths_T.any())

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
        if self._openmp is None:
            self._serial(self._address)
        else:
            self._openmp.run(self._kernel, self._address, self._threads, 0)

"""The kernels between two products, on all threads where a step has many tokens. Each token is one thread's work.

Shape legend: T tokens, D hidden, F MLP width.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numba import cfunc, types
from numba.np.numpy_support import carray

from autoglm_backend.models import cpu_kernels
from autoglm_backend.models.cpu_kernels import kind_of, pointer_at
from autoglm_backend.models.cpu_threads import ALONE, part_of, together

MANY_TOKENS = 32
"""From so many tokens a second thread is worth the call."""
_DOUBLES = np.empty(0, dtype=np.float64)


@cache
def _compiled(dtype: torch.dtype) -> tuple[int, int, int]:
    """Addresses of rms_norm, add_normed and silu_gate as `void f(int64_t *arguments)`."""
    kind = kind_of(dtype)
    size = kind.itemsize

    @cfunc(types.void(types.CPointer(types.int64)), cache=True)
    def rms_norm(pointer: Any) -> None:
        a = carray(pointer, 8)
        part, parts = part_of(a[0], a[1])
        first, last, row = a[2] * part // parts, a[2] * (part + 1) // parts, a[3] * size
        eps = pointer_at(a[4], _DOUBLES)[0]
        cpu_kernels.rms_norm(kind, a[5] + first * row, a[6], a[7] + first * row, last - first, a[3], eps)

    @cfunc(types.void(types.CPointer(types.int64)), cache=True)
    def add_normed(pointer: Any) -> None:
        a = carray(pointer, 10)
        part, parts = part_of(a[0], a[1])
        first, last, row = a[2] * part // parts, a[2] * (part + 1) // parts, a[3] * size
        eps = pointer_at(a[4], _DOUBLES)[0]
        at = first * row
        cpu_kernels.add_normed(kind, a[5] + at, a[6] + at, a[7], a[8], a[9] + at, last - first, a[3], eps)

    @cfunc(types.void(types.CPointer(types.int64)), cache=True)
    def silu_gate(pointer: Any) -> None:
        a = carray(pointer, 6)
        part, parts = part_of(a[0], a[1])
        first, last, row = a[2] * part // parts, a[2] * (part + 1) // parts, a[3] * size
        cpu_kernels.silu_gate(kind, a[4] + 2 * first * row, a[5] + first * row, last - first, a[3])

    addresses = (rms_norm.address, add_normed.address, silu_gate.address)
    assert None not in addresses
    return addresses  # pyright: ignore[reportReturnType]


class RowKernels:
    """`rms_norm`, `add_normed` and `silu_gate` of cpu_kernels, for one step."""

    def __init__(self, dtype: torch.dtype, tokens: int, eps: float) -> None:
        self._rms_norm, self._add_normed, self._silu_gate = _compiled(dtype)
        self._team = team = together() if tokens >= MANY_TOKENS else ALONE
        self._eps_1 = np.array([eps])
        self._eps = self._eps_1.ctypes.data
        # One array for all calls: a new one would take as long as the kernel does for a few tokens.
        self._arguments = np.array([team.thread_num, team.num_threads, tokens, *[0] * 7], dtype=np.int64)
        self._address = self._arguments.ctypes.data

    def rms_norm(self, x: int, weight: int, out: int, size: int) -> None:
        self._arguments[3:8] = (size, self._eps, x, weight, out)
        self._team.run(self._rms_norm, self._address)

    def add_normed(self, stream: int, branch: int, weight: int, next_weight: int, out: int, size: int) -> None:
        self._arguments[3:10] = (size, self._eps, stream, branch, weight, next_weight, out)
        self._team.run(self._add_normed, self._address)

    def silu_gate(self, gate_up: int, out: int, width: int) -> None:
        self._arguments[3:6] = (width, gate_up, out)
        self._team.run(self._silu_gate, self._address)

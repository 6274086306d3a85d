"""Matrix products that read oneDNN's packed weights once for a few tokens, and leave many tokens to oneDNN.

Shape legend: T tokens, K inputs, N outputs, P packed outputs.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import cfunc, njit, types
from numba.np.numpy_support import carray
from torch import Tensor

from autoglm_backend.models.cpu_kernels import BYTES, F32, INLINE, kind_of, narrow, pointer_at, quantize_rows, wide
from autoglm_backend.models.cpu_linear import PackedLinear
from autoglm_backend.models.cpu_threads import part_of, together
from autoglm_backend.models.cpu_tiles import PACKED_OUTPUTS, TILE_ROWS, tile

FEW_TOKENS = {torch.float32: 16, torch.bfloat16: 4, torch.int8: 16}
"""By weights: up to so many the way from memory is what a product takes; beyond, oneDNN's arithmetic is the quicker."""
_LONGS = np.empty(0, dtype=np.int64)
_FLOATS = np.empty(0, dtype=np.float32)
_INTS = np.empty(0, dtype=np.int32)


@njit(**INLINE)
def _tile(kind: Any, rows: int, x: int, stride: int, w: int, steps: int, out: int) -> None:
    if rows == 1:
        tile(kind, 1, x, stride, 0, w, steps, out)
    elif rows == 2:
        tile(kind, 2, x, stride, 1, w, steps, out)
    elif rows <= 4:
        tile(kind, 4, x, stride, rows - 1, w, steps, out)
    else:
        tile(kind, TILE_ROWS, x, stride, rows - 1, w, steps, out)


@cache
def float_product(dtype: torch.dtype) -> int:
    """Address of `void f(int64_t *arguments)`: out[T, N] = x[T, K] @ w (+ bias), weights of x's type."""
    kind = kind_of(dtype)
    size = kind.itemsize

    @cfunc(types.void(types.CPointer(types.int64)), cache=True)
    def product(pointer: Any) -> None:
        a = carray(pointer, 9)
        part, parts = part_of(a[7], a[8])
        x, w, tokens, inputs, outputs = a[0], a[2], a[3], a[4], a[5]
        out_p, bias_p = pointer_at(a[1], kind), pointer_at(a[6], kind)
        sums = np.empty((TILE_ROWS, PACKED_OUTPUTS), dtype=np.float32)
        stride = inputs * size
        blocks = (outputs + PACKED_OUTPUTS - 1) // PACKED_OUTPUTS
        for block in range(blocks * part // parts, blocks * (part + 1) // parts):
            first = block * PACKED_OUTPUTS
            count = min(PACKED_OUTPUTS, outputs - first)
            for start in range(0, tokens, TILE_ROWS):
                rows = min(TILE_ROWS, tokens - start)
                weights = w + first * stride
                _tile(kind, rows, x + start * stride, stride, weights, stride // 4, sums.ctypes.data)
                for row in range(rows):
                    to = (start + row) * outputs + first
                    if a[6] == 0:
                        for i in range(count):
                            out_p[to + i] = narrow(sums[row, i], kind)
                    else:
                        for i in range(count):
                            out_p[to + i] = narrow(sums[row, i] + wide(bias_p[first + i]), kind)

    address = product.address
    assert address is not None
    return address


@cache
def int8_product(dtype: torch.dtype) -> int:
    """Address of `void f(int64_t *arguments)`: inputs are rounded to a byte by the row, weights are signed bytes."""
    kind = kind_of(dtype)

    # Scaling and bias in one rounding, as scale_rows has it for many tokens.
    @cfunc(types.void(types.CPointer(types.int64)), cache=True, fastmath={"contract"})
    def product(pointer: Any) -> None:
        a = carray(pointer, 11)
        part, parts = part_of(a[7], a[8])
        x, w, tokens, inputs, outputs = a[0], a[2], a[3], a[4], a[5]
        out_p, bias_p = pointer_at(a[1], kind), pointer_at(a[6], kind)
        scale_p, shift_p = pointer_at(a[9], _FLOATS), pointer_at(a[10], _INTS)
        sums = np.empty((TILE_ROWS, PACKED_OUTPUTS), dtype=np.int32)
        # Every thread rounds all inputs: cheaper than waiting for one that does.
        rounded = np.empty((tokens, inputs), dtype=np.uint8)
        scale_T = np.empty(tokens, dtype=np.float32)
        quantize_rows(kind, x, rounded.ctypes.data, scale_T, inputs)
        blocks = (outputs + PACKED_OUTPUTS - 1) // PACKED_OUTPUTS
        for block in range(blocks * part // parts, blocks * (part + 1) // parts):
            first = block * PACKED_OUTPUTS
            count = min(PACKED_OUTPUTS, outputs - first)
            for start in range(0, tokens, TILE_ROWS):
                rows = min(TILE_ROWS, tokens - start)
                inputs_at, weights = rounded.ctypes.data + start * inputs, w + first * inputs
                _tile(BYTES, rows, inputs_at, inputs, weights, inputs // 4, sums.ctypes.data)
                for row in range(rows):
                    to, scale = (start + row) * outputs + first, scale_T[start + row]
                    if a[6] == 0:
                        for i in range(count):
                            value = F32(sums[row, i] - shift_p[first + i]) * scale_p[first + i]
                            out_p[to + i] = narrow(value * scale, kind)
                    else:
                        for i in range(count):
                            value = F32(sums[row, i] - shift_p[first + i]) * scale_p[first + i]
                            out_p[to + i] = narrow(value * scale + wide(bias_p[first + i]), kind)

    address = product.address
    assert address is not None
    return address


class FewTokens:
    """The call of a compiled product for a few tokens."""

    def __init__(
        self, kernel: int, packed: Tensor, inputs: int, outputs: int, bias_N: Tensor | None, *more: Tensor
    ) -> None:
        self._kept = (packed, bias_N, more)  # the kernel reads them by address
        self._team = together()
        self._arguments = np.array(
            [
                *(0, 0, _address_of(packed), 0, inputs, outputs),
                0 if bias_N is None else bias_N.data_ptr(),
                *(self._team.thread_num, self._team.num_threads),
                *(tensor.data_ptr() for tensor in more),
            ],
            dtype=np.int64,
        )
        self._address = self._arguments.ctypes.data
        self._kernel, self._outputs = kernel, outputs

    def __call__(self, x_TK: Tensor) -> Tensor:
        tokens = x_TK.shape[0]
        y_TN = x_TK.new_empty((tokens, self._outputs))
        arguments = self._arguments
        arguments[0], arguments[1], arguments[3] = x_TK.data_ptr(), y_TN.data_ptr(), tokens
        self._team.run(self._kernel, self._address)
        return y_TN


class StreamedLinear:
    """Weights in oneDNN's blocked layout, read once for a few tokens."""

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None) -> None:
        """Raises ValueError where oneDNN packs these weights in another way than the kernel reads."""
        outputs, inputs = weight_NK.shape
        self._many = PackedLinear(weight_NK, bias_N)
        check_layout(self._many.packed, weight_NK)
        self._few = FewTokens(float_product(weight_NK.dtype), self._many.packed, inputs, outputs, bias_N)
        self._most = FEW_TOKENS[weight_NK.dtype]

    def __call__(self, x_TK: Tensor) -> Tensor:
        return self._few(x_TK) if x_TK.shape[0] <= self._most else self._many(x_TK)


def check_layout(packed: Tensor, weight_NK: Tensor) -> None:
    """Raises ValueError unless `packed` holds [N / P, K, P], inputs of 4 bytes side by side, zeros behind the last."""
    outputs, inputs = weight_NK.shape
    together = 4 // weight_NK.element_size()
    if inputs % together:
        raise ValueError(f"{inputs} inputs of {weight_NK.dtype} are not a multiple of 4 bytes")
    blocks = -(-outputs // PACKED_OUTPUTS)
    block_bytes = PACKED_OUTPUTS * inputs * weight_NK.element_size()
    if torch.ops.mkldnn._nbytes(packed) < blocks * block_bytes:
        raise ValueError(f"oneDNN packs {list(weight_NK.shape)} weights of {weight_NK.dtype} in less memory")
    # The first block and the last tell: a copy of them all would take as long as packing did.
    for block in {0, blocks - 1}:
        part_NK = weight_NK[block * PACKED_OUTPUTS : (block + 1) * PACKED_OUTPUTS]
        padded_PK = weight_NK.new_zeros((PACKED_OUTPUTS, inputs))
        padded_PK[: len(part_NK)] = part_NK
        expected = padded_PK.unflatten(1, (-1, together)).transpose(0, 1).contiguous()
        found = _bytes_at(_address_of(packed) + block * block_bytes, block_bytes)
        if not torch.equal(found, _bytes_at(expected.data_ptr(), block_bytes)):
            raise ValueError(f"oneDNN packs {list(weight_NK.shape)} weights of {weight_NK.dtype} in another order")


def has_vnni() -> bool:
    """Whether this CPU multiplies bytes in 512-bit vectors."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_vnni" in flags


def _address_of(packed: Tensor) -> int:
    return torch.ops.mkldnn.data_ptr(packed)


def _bytes_at(address: int, size: int) -> Tensor:
    return torch.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype=torch.uint8)

"""What stands between the matrix products of a decoder layer, as native loops over raw memory: norms, rotation,
gating, quantization. Attention is in cpu_attention.py.

torch spends more time entering an operator than a small layer spends computing; each kernel here does in one call what
takes torch ten. numba compiles them at the first load (cached on disk afterwards), so no C++ compiler is needed. Every
row is computed by itself in a fixed order: a token's numbers do not depend on which others share its step.

Arguments are addresses of contiguous memory, then sizes. `kind` is an empty numpy array of the storage type: uint32
that holds float32 bits, or uint16 that holds bfloat16 bits. Arithmetic is float32.

Shape legend: T tokens, D hidden, H heads, G KV heads, d head dimension, R rotary dimension, S block size, F MLP width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit, types
from numba.extending import intrinsic as _intrinsic
from numba.extending import overload

intrinsic: Any = _intrinsic  # its result is called without the typing context, which no type checker knows
KERNEL: Any = {"fastmath": True, "nogil": True, "cache": True, "error_model": "numpy"}
INLINE: Any = {"fastmath": True, "nogil": True, "error_model": "numpy"}
F32 = np.float32
U32 = np.uint32
KINDS = {torch.float32: np.empty(0, dtype=np.uint32), torch.bfloat16: np.empty(0, dtype=np.uint16)}
"""Precisions that the kernels know, and the `kind` that stands for each."""

BYTES = np.empty(0, dtype=np.uint8)


def kind_of(dtype: torch.dtype) -> np.ndarray:
    return KINDS[dtype]


@intrinsic
def pointer_at(typingctx: Any, address: Any, kind: Any) -> tuple[Any, Callable[..., Any]]:
    """The address as a pointer to kind's element type."""
    pointer = types.CPointer(kind.dtype)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(pointer))

    return pointer(types.int64, kind), codegen


@intrinsic
def _as_float(typingctx: Any, bits: Any) -> tuple[Any, Callable[..., Any]]:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), codegen


@intrinsic
def _as_bits(typingctx: Any, number: Any) -> tuple[Any, Callable[..., Any]]:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.uint32))

    return types.uint32(types.float32), codegen


def wide(value: Any) -> Any:
    """A stored value as float32."""
    raise NotImplementedError("for compiled code")


@overload(wide, jit_options=INLINE)
def _wide_overload(value):
    if value == types.uint16:
        return lambda value: _as_float(U32(U32(value) << U32(16)))
    return lambda value: _as_float(value)


def narrow(value: Any, kind: Any) -> Any:
    """A float32 as it is stored; bfloat16 rounds to the nearest, ties to even."""
    raise NotImplementedError("for compiled code")


@overload(narrow, jit_options=INLINE)
def _narrow_overload(value, kind):
    if kind.dtype == types.uint16:

        def rounded(value, kind):
            bits = _as_bits(F32(value))
            odd = U32(U32(bits >> U32(16)) & U32(1))
            return np.uint16(U32(bits + U32(0x7FFF) + odd) >> U32(16))

        return rounded
    return lambda value, kind: _as_bits(F32(value))


@njit(**INLINE)
def exp(value: Any) -> Any:
    """e^value as a polynomial that vectorises, within 3e-7 relative (Cephes' expf)."""
    value = min(max(value, F32(-87.0)), F32(88.0))
    whole = np.floor(F32(value * F32(1.4426950408889634)) + F32(0.5))
    part = F32(F32(value - whole * F32(0.693359375)) - whole * F32(-2.12194440e-4))
    p = F32(1.9875691500e-4)
    p = F32(p * part + F32(1.3981999507e-3))
    p = F32(p * part + F32(8.3334519073e-3))
    p = F32(p * part + F32(4.1665795894e-2))
    p = F32(p * part + F32(1.6666665459e-1))
    p = F32(p * part + F32(5.0000001201e-1))
    p = F32(p * part * part + part + F32(1.0))
    return F32(p * _as_float(U32(np.int32(np.int32(whole) + np.int32(127)) << np.int32(23))))


@njit(**INLINE)
def _inverse_rms(x: Any, start: int, size: int, eps: float) -> Any:
    total = F32(0.0)
    for i in range(size):
        value = wide(x[start + i])
        total += value * value
    return F32(1.0) / np.sqrt(total / F32(size) + F32(eps))


@njit(**KERNEL)
def rms_norm(kind: Any, x: int, weight: int, out: int, tokens: int, size: int, eps: float) -> None:
    """out[T, D] = x / rms(x) * weight."""
    x_p, w_p, out_p = pointer_at(x, kind), pointer_at(weight, kind), pointer_at(out, kind)
    for t in range(tokens):
        row = t * size
        scale = _inverse_rms(x_p, row, size, eps)
        for i in range(size):
            out_p[row + i] = narrow(wide(x_p[row + i]) * scale * wide(w_p[i]), kind)


@njit(**KERNEL)
def add_normed(
    kind: Any, stream: int, branch: int, weight: int, next_weight: int, out: int, tokens: int, size: int, eps: float
) -> None:
    """stream += rms_norm(branch, weight); and, where next_weight is an address, out = rms_norm(stream, next_weight)."""
    s_p, b_p, w_p = pointer_at(stream, kind), pointer_at(branch, kind), pointer_at(weight, kind)
    for t in range(tokens):
        row = t * size
        scale = _inverse_rms(b_p, row, size, eps)
        for i in range(size):
            s_p[row + i] = narrow(wide(s_p[row + i]) + wide(b_p[row + i]) * scale * wide(w_p[i]), kind)
    if next_weight != 0:
        n_p, out_p = pointer_at(next_weight, kind), pointer_at(out, kind)
        for t in range(tokens):
            row = t * size
            scale = _inverse_rms(s_p, row, size, eps)
            for i in range(size):
                out_p[row + i] = narrow(wide(s_p[row + i]) * scale * wide(n_p[i]), kind)


@njit(**KERNEL)
def silu_gate(kind: Any, gate_up: int, out: int, tokens: int, width: int) -> None:
    """out[T, F] = silu(gate) * up, of gate_up[T, 2F]."""
    in_p, out_p = pointer_at(gate_up, kind), pointer_at(out, kind)
    for t in range(tokens):
        gate, up, row = t * 2 * width, t * 2 * width + width, t * width
        for i in range(width):
            g = wide(in_p[gate + i])
            value = g / (F32(1.0) + exp(-g)) * wide(in_p[up + i])
            out_p[row + i] = narrow(value, kind)


@njit(**KERNEL)
def rotate_and_store(
    kind: Any,
    qkv: int,
    cos: Any,
    sin: Any,
    slots: Any,
    keys: int,
    values: int,
    heads: int,
    groups: int,
    head_dim: int,
) -> None:
    """Turn queries and keys of qkv[T, (H + 2G) * d] in place, then write keys and values to their slots.

    cos, sin: float32 [T, R/2], even/odd pairs. slots: int64 [T], rows of keys and values [slots, G, d].
    """
    p, keys_p, values_p = pointer_at(qkv, kind), pointer_at(keys, kind), pointer_at(values, kind)
    kv_size = groups * head_dim
    for t in range(len(slots)):
        row = t * (heads + 2 * groups) * head_dim
        for head in range(heads + groups):
            at = row + head * head_dim
            for i in range(cos.shape[1]):
                even, odd = wide(p[at + 2 * i]), wide(p[at + 2 * i + 1])
                p[at + 2 * i] = narrow(even * cos[t, i] - odd * sin[t, i], kind)
                p[at + 2 * i + 1] = narrow(odd * cos[t, i] + even * sin[t, i], kind)
        to, key = slots[t] * kv_size, row + heads * head_dim
        for i in range(kv_size):
            keys_p[to + i] = p[key + i]
            values_p[to + i] = p[key + kv_size + i]


@njit(**KERNEL)
def quantize_rows(kind: Any, x: int, out: int, scales: Any, size: int) -> None:
    """out[T, K] uint8 = round(x / scale) + 128, scales[T] float32 = max |x| / 127 of each row."""
    x_p, out_p = pointer_at(x, kind), pointer_at(out, BYTES)
    for t in range(len(scales)):
        row = t * size
        most = F32(0.0)
        for i in range(size):
            most = max(most, abs(wide(x_p[row + i])))
        scales[t] = most / F32(127.0)
        inverse = F32(127.0) / max(most, F32(1e-30))
        for i in range(size):
            # Rounds half up; the shift by 128 makes truncation a floor.
            out_p[row + i] = np.uint8(np.int32(wide(x_p[row + i]) * inverse + F32(128.5)))


@njit(**KERNEL)
def scale_rows(kind: Any, x: int, scales: Any, bias: int, size: int) -> None:
    """x[T, N] = x * scales[T] (+ bias[N], where bias is an address)."""
    x_p = pointer_at(x, kind)
    if bias == 0:
        for t in range(len(scales)):
            for i in range(size):
                x_p[t * size + i] = narrow(wide(x_p[t * size + i]) * scales[t], kind)
    else:
        bias_p = pointer_at(bias, kind)
        for t in range(len(scales)):
            for i in range(size):
                x_p[t * size + i] = narrow(wide(x_p[t * size + i]) * scales[t] + wide(bias_p[i]), kind)

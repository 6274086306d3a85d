"""Products of a few tokens with 64 outputs' weights, as vector instructions: what decoding spends its time on.

A product of a few tokens reads every weight once and does little with it, so it should take as long as reading takes.
Libraries are made for many tokens. These tiles read weights where oneDNN packed them (`PACKED_OUTPUTS` outputs side by
side, inputs in turn), keep all sums in registers, and add in the order of the inputs: a token's numbers do not depend
on which others share its step.

For numba-compiled code only. Addresses are of contiguous memory.

Shape legend: K inputs, P packed outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from autoglm_backend.models import cpu_vectors as vec
from autoglm_backend.models.cpu_kernels import intrinsic

PACKED_OUTPUTS = 64
TILE_ROWS = 8
LANES = 16
_REGISTERS = 16
"""Sums that are kept at once, of 16 lanes each; half of what AVX-512 has, weights and inputs need the rest."""

_INTS, _FLOATS = ir.VectorType(vec.I32, LANES), ir.VectorType(vec.F32, LANES)
_BYTES = ir.VectorType(ir.IntType(8), 4 * LANES)


def _prefetch(builder: Any, address: Any) -> None:
    kinds = (ir.PointerType(), vec.I32, vec.I32, vec.I32)
    function = builder.module.declare_intrinsic("llvm.prefetch.p0", (), ir.FunctionType(ir.VoidType(), kinds))
    reading, into_all_caches, data = (ir.Constant(vec.I32, number) for number in (0, 3, 1))
    builder.call(function, (builder.inttoptr(address, ir.PointerType()), reading, into_all_caches, data))


def _constant(value: int) -> Any:
    return ir.Constant(_INTS, [ir.Constant(vec.I32, value)] * LANES)


def _halves(builder: Any, pair: Any) -> tuple[Any, Any]:
    """Two bfloat16 in each 32-bit lane, as float32: the earlier input, the later one."""
    low = builder.bitcast(builder.shl(pair, _constant(16)), _FLOATS)
    return low, builder.bitcast(builder.and_(pair, _constant(-65536)), _FLOATS)


class _Format:
    """How weights of one storage type are multiplied: a step takes 4 bytes of each packed output."""

    def __init__(self, storage: str) -> None:
        self.storage = storage
        self.sums = _INTS if storage == "uint8" else _FLOATS

    def loaded(self, builder: Any, bits: Any) -> tuple[Any, ...]:
        if self.storage == "uint32":
            return (builder.bitcast(bits, _FLOATS),)
        return _halves(builder, bits) if self.storage == "uint16" else (bits,)

    def added(self, builder: Any, total: Any, weights: tuple[Any, ...], inputs: tuple[Any, ...]) -> Any:
        if self.storage == "uint8":
            dot = builder.module.declare_intrinsic(
                "llvm.x86.avx512.vpdpbusd.512", (), ir.FunctionType(_INTS, (_INTS, _BYTES, _BYTES))
            )
            left, right = builder.bitcast(inputs[0], _BYTES), builder.bitcast(weights[0], _BYTES)
            return builder.call(dot, (total, left, right))
        fma = builder.module.declare_intrinsic("llvm.fma.v16f32", (), ir.FunctionType(_FLOATS, (_FLOATS,) * 3))
        for weight, value in zip(weights, inputs, strict=True):
            total = builder.call(fma, (weight, value, total))
        return total


@intrinsic(prefer_literal=True)
def tile(
    typingctx: Any, kind: Any, rows: Any, x: Any, stride: Any, last_row: Any, w: Any, steps: Any, out: Any
) -> tuple[Any, Callable[..., Any]] | None:
    """out[rows, P] = x[rows, K] @ w[K, P], float32; or int32 for unsigned bytes x and signed bytes w.

    kind: an empty array of the storage type (cpu_kernels.KINDS, BYTES). rows: a literal, 1 to TILE_ROWS; rows beyond
    last_row repeat it. stride: bytes from one row of x to the next. steps: 4-byte words of a row of x.
    """
    if not isinstance(rows, types.IntegerLiteral):
        return None
    count: int = rows.literal_value
    form = _Format(kind.dtype.name)
    width = min(PACKED_OUTPUTS // LANES, max(1, _REGISTERS // count))

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> None:
        _, _, x_at, row_bytes, last, w_at, num_steps, out_at = args
        zero, one = ir.Constant(vec.I64, 0), ir.Constant(vec.I64, 1)
        starts = [x_at]
        for row in range(1, count):
            wanted = ir.Constant(vec.I64, row)
            number = builder.select(builder.icmp_signed("<", wanted, last), wanted, last)
            starts.append(builder.add(x_at, builder.mul(number, row_bytes)))
        for first in range(0, PACKED_OUTPUTS // LANES, width):
            before = builder.block
            body, after = builder.append_basic_block("tile.body"), builder.append_basic_block("tile.after")
            builder.branch(body)
            builder.position_at_end(body)
            step = builder.phi(vec.I64)
            step.add_incoming(zero, before)
            totals = [[builder.phi(form.sums) for _ in range(width)] for _ in range(count)]
            words = builder.mul(step, ir.Constant(vec.I64, 4))
            weights_at = builder.add(w_at, builder.mul(step, ir.Constant(vec.I64, 4 * PACKED_OUTPUTS)))
            weights = [
                form.loaded(
                    builder,
                    vec.load(builder, builder.add(weights_at, ir.Constant(vec.I64, 4 * LANES * (first + i))), _INTS),
                )
                for i in range(width)
            ]
            if first == 0:
                # The later passes' share of this step: read here, memory is gone through once and in order.
                for i in range(width, PACKED_OUTPUTS // LANES):
                    _prefetch(builder, builder.add(weights_at, ir.Constant(vec.I64, 4 * LANES * i)))
            sums: list[list[Any]] = []
            for row in range(count):
                word = vec.load(builder, builder.add(starts[row], words), vec.I32)
                inputs = form.loaded(builder, vec.splat(builder, word, _INTS))
                sums.append([form.added(builder, totals[row][i], weights[i], inputs) for i in range(width)])
            following = builder.add(step, one)
            step.add_incoming(following, body)
            for row in range(count):
                for i in range(width):
                    totals[row][i].add_incoming(ir.Constant(form.sums, None), before)
                    totals[row][i].add_incoming(sums[row][i], body)
            builder.cbranch(builder.icmp_signed("<", following, num_steps), body, after)
            builder.position_at_end(after)
            for row in range(count):
                for i in range(width):
                    offset = 4 * (row * PACKED_OUTPUTS + LANES * (first + i))
                    to = builder.inttoptr(builder.add(out_at, ir.Constant(vec.I64, offset)), ir.PointerType())
                    builder.store(sums[row][i], to, align=1)
        return context.get_dummy_value()

    integers = (types.int64,) * 6
    return types.none(kind, rows, *integers), codegen

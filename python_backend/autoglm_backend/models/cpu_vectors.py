"""Vector instructions for numba-compiled code, by llvmlite: where numba's own loops are slow, or their sums unordered.

Addresses are int64 values; loads and stores need no alignment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

I16, I32, I64, F32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()


def integer(value: int) -> Any:
    return ir.Constant(I64, value)


def plus(builder: Any, address: Any, offset: Any) -> Any:
    return builder.add(address, integer(offset) if isinstance(offset, int) else offset)


def load(builder: Any, address: Any, kind: Any) -> Any:
    return builder.load(builder.inttoptr(address, ir.PointerType()), typ=kind, align=1)


def store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, builder.inttoptr(address, ir.PointerType()), align=1)


def splat(builder: Any, value: Any, kind: Any) -> Any:
    """A vector of `kind` with the value in every lane."""
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(I32, 0))
    return shuffled(builder, first, first, [0] * kind.count)


def shuffled(builder: Any, x: Any, y: Any, lanes: list[int]) -> Any:
    mask = ir.Constant(ir.VectorType(I32, len(lanes)), [ir.Constant(I32, lane) for lane in lanes])
    return builder.shuffle_vector(x, y, mask)


def fma(builder: Any, x: Any, y: Any, total: Any, lanes: int) -> Any:
    kind = ir.VectorType(F32, lanes)
    function = builder.module.declare_intrinsic(f"llvm.fma.v{lanes}f32", (), ir.FunctionType(kind, (kind,) * 3))
    return builder.call(function, (x, y, total))


def loop(builder: Any, count: Any, states: list[tuple[Any, Any]], step: Callable[[Any, list[Any]], list[Any]]) -> Any:
    """`for i in range(count): states = step(i, states)` for count >= 1; states are (type, start). Returns the last."""
    before = builder.block
    body, after = builder.append_basic_block("loop.body"), builder.append_basic_block("loop.after")
    builder.branch(body)
    builder.position_at_end(body)
    index = builder.phi(I64)
    phis = [builder.phi(kind) for kind, _ in states]
    results = step(index, phis)
    following = builder.add(index, integer(1))
    index.add_incoming(integer(0), before)
    index.add_incoming(following, body)
    for phi, (_, start), result in zip(phis, states, results, strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(result, body)
    builder.cbranch(builder.icmp_signed("<", following, count), body, after)
    builder.position_at_end(after)
    return results


def literals(*arguments: Any) -> tuple[int, ...] | None:
    if not all(isinstance(argument, types.IntegerLiteral) for argument in arguments):
        return None
    return tuple(argument.literal_value for argument in arguments)

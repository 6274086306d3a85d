"""The two inner loops of attention over a paged cache, as vector instructions: queries on keys, weights on values.

All query heads that share a KV head are taken together, so keys and values are read and widened once for them. Sums are
in a fixed order: results do not depend on what else a step holds.

For numba-compiled code only. Addresses are of contiguous memory; `offsets` is int64, bytes from `base` to each key or
value in the cache.

Shape legend: H query heads of one KV head, d head dimension, L keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from autoglm_backend.models.cpu_kernels import intrinsic

_REGISTERS = 16
"""Vectors of keys, or of sums, that are kept at once: half of what AVX-512 has."""
_I16, _I32, _I64, _F32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()


def lanes_of(head_dim: int) -> int:
    """Width of the vectors that a head is cut into."""
    return math.gcd(16, head_dim)


def keys_at_once(head_dim: int) -> int:
    """Keys that `score_keys` takes in one call."""
    lanes = lanes_of(head_dim)
    return min(lanes, 1 << (max(1, _REGISTERS * lanes // head_dim).bit_length() - 1))


def heads_at_once(head_dim: int, share: int) -> int:
    """Query heads that `add_values` takes in one call."""
    return min(share, max(1, _REGISTERS * lanes_of(head_dim) // head_dim))


def _integer(value: int) -> Any:
    return ir.Constant(_I64, value)


def _plus(builder: Any, address: Any, offset: Any) -> Any:
    return builder.add(address, _integer(offset) if isinstance(offset, int) else offset)


def _load(builder: Any, address: Any, kind: Any) -> Any:
    return builder.load(builder.inttoptr(address, ir.PointerType()), typ=kind, align=1)


def _store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, builder.inttoptr(address, ir.PointerType()), align=1)


def _splat(builder: Any, value: Any, lanes: int) -> Any:
    kind = ir.VectorType(_F32, lanes)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_I32, 0))
    return _shuffled(builder, first, first, [0] * lanes)


def _shuffled(builder: Any, x: Any, y: Any, lanes: list[int]) -> Any:
    mask = ir.Constant(ir.VectorType(_I32, len(lanes)), [ir.Constant(_I32, lane) for lane in lanes])
    return builder.shuffle_vector(x, y, mask)


def _stored_vector(builder: Any, address: Any, storage: str, lanes: int) -> Any:
    """Values of the cache, as float32."""
    if storage == "uint32":
        return _load(builder, address, ir.VectorType(_F32, lanes))
    words = builder.zext(_load(builder, address, ir.VectorType(_I16, lanes)), ir.VectorType(_I32, lanes))
    shift = ir.Constant(ir.VectorType(_I32, lanes), [ir.Constant(_I32, 16)] * lanes)
    return builder.bitcast(builder.shl(words, shift), ir.VectorType(_F32, lanes))


def _fma(builder: Any, x: Any, y: Any, total: Any, lanes: int) -> Any:
    kind = ir.VectorType(_F32, lanes)
    function = builder.module.declare_intrinsic(f"llvm.fma.v{lanes}f32", (), ir.FunctionType(kind, (kind,) * 3))
    return builder.call(function, (x, y, total))


def _sums(builder: Any, vectors: list[Any], lanes: int) -> Any:
    """The sum of each vector's lanes, one lane per vector; their number is a power of two."""
    part = lanes
    while len(vectors) > 1:  # two vectors become one, in which each keeps half as many lanes
        pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
        low = [start + i for start in range(0, 2 * lanes, part) for i in range(part // 2)]
        high = [start + i + part // 2 for start in range(0, 2 * lanes, part) for i in range(part // 2)]
        vectors = [builder.fadd(_shuffled(builder, x, y, low), _shuffled(builder, x, y, high)) for x, y in pairs]
        part //= 2
    (total,) = vectors
    size = lanes
    while part > 1:
        low = [start + i for start in range(0, size, part) for i in range(part // 2)]
        high = [lane + part // 2 for lane in low]
        total = builder.fadd(_shuffled(builder, total, total, low), _shuffled(builder, total, total, high))
        size, part = size // 2, part // 2
    return total


def _loop(builder: Any, count: Any, states: list[tuple[Any, Any]], step: Callable[[Any, list[Any]], list[Any]]) -> Any:
    """`for i in range(count): states = step(i, states)` for count >= 1; states are (type, start). Returns the last."""
    before = builder.block
    body, after = builder.append_basic_block("loop.body"), builder.append_basic_block("loop.after")
    builder.branch(body)
    builder.position_at_end(body)
    index = builder.phi(_I64)
    phis = [builder.phi(kind) for kind, _ in states]
    results = step(index, phis)
    following = builder.add(index, _integer(1))
    index.add_incoming(_integer(0), before)
    index.add_incoming(following, body)
    for phi, (_, start), result in zip(phis, states, results, strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(result, body)
    builder.cbranch(builder.icmp_signed("<", following, count), body, after)
    builder.position_at_end(after)
    return results


def _literals(*arguments: Any) -> tuple[int, ...] | None:
    if not all(isinstance(argument, types.IntegerLiteral) for argument in arguments):
        return None
    return tuple(argument.literal_value for argument in arguments)


@intrinsic(prefer_literal=True)
def score_keys(
    typingctx: Any, kind: Any, head_dim: Any, q: Any, heads: Any, base: Any, offsets: Any, out: Any, stride: Any
) -> tuple[Any, Callable[..., Any]] | None:
    """out[h, j] = q[h] . key[j] of the next `keys_at_once(head_dim)` keys, float32.

    q: float32 [H, d]. kind: an empty array of the cache's storage type (cpu_kernels.KINDS). head_dim: a literal.
    stride: bytes from one head of out to the next.
    """
    literals = _literals(head_dim)
    if literals is None:
        return None
    (size,) = literals
    lanes, count, storage = lanes_of(size), keys_at_once(size), kind.dtype.name
    parts, width = range(0, size, lanes), kind.dtype.bitwidth // 8
    vector = ir.VectorType(_F32, lanes)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, _, q_at, num_heads, base_at, offsets_at, out_at, out_stride = args
        starts = [
            _plus(builder, base_at, _load(builder, _plus(builder, offsets_at, 8 * j), _I64)) for j in range(count)
        ]
        keys = [
            [_stored_vector(builder, _plus(builder, start, part * width), storage, lanes) for part in parts]
            for start in starts
        ]

        def one_head(head: Any, _: list[Any]) -> list[Any]:
            at = builder.add(q_at, builder.mul(head, _integer(4 * size)))
            query = [_load(builder, _plus(builder, at, 4 * part), vector) for part in parts]
            totals = [builder.fmul(query[0], key[0]) for key in keys]
            for i in range(1, len(query)):
                totals = [
                    _fma(builder, query[i], key[i], total, lanes) for key, total in zip(keys, totals, strict=True)
                ]
            to = builder.add(out_at, builder.mul(head, out_stride))
            _store(builder, _sums(builder, totals, lanes), to)
            return []

        _loop(builder, num_heads, [], one_head)
        return context.get_dummy_value()

    return types.none(kind, head_dim, *(types.int64,) * 6), codegen


@intrinsic(prefer_literal=True)
def add_values(
    typingctx: Any,
    kind: Any,
    head_dim: Any,
    heads: Any,
    weights: Any,
    stride: Any,
    last_head: Any,
    base: Any,
    offsets: Any,
    keys: Any,
    out: Any,
) -> tuple[Any, Callable[..., Any]] | None:
    """out[h] = the sum over `keys` keys of weights[h, j] * value[j], float32 [H, d].

    heads: a literal, at most `heads_at_once`; heads beyond last_head repeat it. stride: bytes from one head of weights
    to the next.
    """
    literals = _literals(head_dim, heads)
    if literals is None:
        return None
    size, count = literals
    lanes, storage, width = lanes_of(size), kind.dtype.name, kind.dtype.bitwidth // 8
    parts = range(0, size, lanes)
    vector = ir.VectorType(_F32, lanes)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, _, _, weights_at, weights_stride, last, base_at, offsets_at, num_keys, out_at = args
        numbers: list[Any] = []
        for head in range(count):
            wanted = _integer(head)
            numbers.append(builder.select(builder.icmp_signed("<", wanted, last), wanted, last))
        rows = [builder.add(weights_at, builder.mul(number, weights_stride)) for number in numbers]

        def one_key(j: Any, totals: list[Any]) -> list[Any]:
            offset = _load(builder, builder.add(offsets_at, builder.mul(j, _integer(8))), _I64)
            at = builder.add(base_at, offset)
            value = [_stored_vector(builder, _plus(builder, at, part * width), storage, lanes) for part in parts]
            results: list[Any] = []
            for i, row in enumerate(rows):
                weight = _splat(builder, _load(builder, builder.add(row, builder.mul(j, _integer(4))), _F32), lanes)
                sums = totals[i * len(value) : (i + 1) * len(value)]
                results += [_fma(builder, weight, v, total, lanes) for v, total in zip(value, sums, strict=True)]
            return results

        zero = ir.Constant(vector, None)
        totals = _loop(builder, num_keys, [(vector, zero)] * (count * len(parts)), one_key)
        for i, number in enumerate(numbers):
            to = builder.add(out_at, builder.mul(number, _integer(4 * size)))
            for part, total in zip(parts, totals[i * len(parts) : (i + 1) * len(parts)], strict=True):
                _store(builder, total, _plus(builder, to, 4 * part))
        return context.get_dummy_value()

    return types.none(kind, head_dim, heads, *(types.int64,) * 7), codegen

"""The inner loops of attention over a paged cache, as vector instructions: queries on keys, weights on values.

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

from autoglm_backend.models import cpu_vectors as vec
from autoglm_backend.models.cpu_kernels import intrinsic

_REGISTERS = 16
"""Vectors of keys, or of sums, that are kept at once: half of what AVX-512 has."""
PACKED_KEYS = 16
"""Keys that lie side by side, one lane each, when they are turned for `score_packed_keys`."""
LARGEST_FROM = 16
"""Numbers from which `largest` can be used."""


def lanes_of(head_dim: int) -> int:
    """Width of the vectors that a head is cut into."""
    return math.gcd(16, head_dim)


def keys_at_once(head_dim: int) -> int:
    """Keys that `score_keys` takes in one call."""
    lanes = lanes_of(head_dim)
    return min(lanes, 1 << (max(1, _REGISTERS * lanes // head_dim).bit_length() - 1))


def queries_at_once(head_dim: int, share: int) -> int:
    """Queries that `score_packed_keys` takes in one call: each holds a branch of its tree of sums in registers."""
    return min(share, 4)


def heads_at_once(head_dim: int, share: int) -> int:
    """Query heads that `add_values` takes in one call."""
    return min(share, max(1, _REGISTERS * lanes_of(head_dim) // head_dim))


def _stored_vector(builder: Any, address: Any, storage: str, lanes: int) -> Any:
    """Values of the cache, as float32."""
    if storage == "uint32":
        return vec.load(builder, address, ir.VectorType(vec.F32, lanes))
    words = builder.zext(vec.load(builder, address, ir.VectorType(vec.I16, lanes)), ir.VectorType(vec.I32, lanes))
    shift = ir.Constant(ir.VectorType(vec.I32, lanes), [ir.Constant(vec.I32, 16)] * lanes)
    return builder.bitcast(builder.shl(words, shift), ir.VectorType(vec.F32, lanes))


def _sums(builder: Any, vectors: list[Any], lanes: int) -> Any:
    """The sum of each vector's lanes, one lane per vector; their number is a power of two."""
    part = lanes
    while len(vectors) > 1:  # two vectors become one, in which each keeps half as many lanes
        pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
        low = [start + i for start in range(0, 2 * lanes, part) for i in range(part // 2)]
        high = [start + i + part // 2 for start in range(0, 2 * lanes, part) for i in range(part // 2)]
        vectors = [builder.fadd(vec.shuffled(builder, x, y, low), vec.shuffled(builder, x, y, high)) for x, y in pairs]
        part //= 2
    (total,) = vectors
    size = lanes
    while part > 1:
        low = [start + i for start in range(0, size, part) for i in range(part // 2)]
        high = [lane + part // 2 for lane in low]
        total = builder.fadd(vec.shuffled(builder, total, total, low), vec.shuffled(builder, total, total, high))
        size, part = size // 2, part // 2
    return total


@intrinsic
def largest(typingctx: Any, x: Any, count: Any) -> tuple[Any, Callable[..., Any]]:
    """The largest of `count` float32, `LARGEST_FROM` or more. (A loop of numba's takes four times as long.)"""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x_at, number = args
        vector = ir.VectorType(vec.F32, LARGEST_FROM)

        def larger(one: Any, other: Any) -> Any:
            return builder.select(builder.fcmp_ordered(">", one, other), one, other)

        def step(i: Any, most: list[Any]) -> list[Any]:
            at = builder.add(x_at, builder.mul(i, vec.integer(4 * LARGEST_FROM)))
            return [larger(most[0], vec.load(builder, at, vector))]

        # The last ones first, some of which come again.
        rest = builder.add(x_at, builder.mul(builder.sub(number, vec.integer(LARGEST_FROM)), vec.integer(4)))
        whole = builder.sdiv(number, vec.integer(LARGEST_FROM))
        (most,) = vec.loop(builder, whole, [(vector, vec.load(builder, rest, vector))], step)
        lanes = LARGEST_FROM
        while lanes > 1:
            lanes //= 2
            low, high = (vec.shuffled(builder, most, most, list(range(start, start + lanes))) for start in (0, lanes))
            most = larger(low, high)
        return builder.extract_element(most, ir.Constant(vec.I32, 0))

    return types.float32(types.int64, types.int64), codegen


@intrinsic(prefer_literal=True)
def score_keys(
    typingctx: Any, kind: Any, head_dim: Any, q: Any, heads: Any, base: Any, offsets: Any, out: Any, stride: Any
) -> tuple[Any, Callable[..., Any]] | None:
    """out[h, j] = q[h] . key[j] of the next `keys_at_once(head_dim)` keys, float32.

    q: float32 [H, d]. kind: an empty array of the cache's storage type (cpu_kernels.KINDS). head_dim: a literal.
    stride: bytes from one head of out to the next.
    """
    literals = vec.literals(head_dim)
    if literals is None:
        return None
    (size,) = literals
    lanes, count, storage = lanes_of(size), keys_at_once(size), kind.dtype.name
    parts, width = range(0, size, lanes), kind.dtype.bitwidth // 8
    vector = ir.VectorType(vec.F32, lanes)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, _, q_at, num_heads, base_at, offsets_at, out_at, out_stride = args
        starts = [
            vec.plus(builder, base_at, vec.load(builder, vec.plus(builder, offsets_at, 8 * j), vec.I64))
            for j in range(count)
        ]
        keys = [
            [_stored_vector(builder, vec.plus(builder, start, part * width), storage, lanes) for part in parts]
            for start in starts
        ]

        def one_head(head: Any, _: list[Any]) -> list[Any]:
            at = builder.add(q_at, builder.mul(head, vec.integer(4 * size)))
            query = [vec.load(builder, vec.plus(builder, at, 4 * part), vector) for part in parts]
            totals = [builder.fmul(query[0], key[0]) for key in keys]
            for i in range(1, len(query)):
                totals = [
                    vec.fma(builder, query[i], key[i], total, lanes) for key, total in zip(keys, totals, strict=True)
                ]
            to = builder.add(out_at, builder.mul(head, out_stride))
            vec.store(builder, _sums(builder, totals, lanes), to)
            return []

        vec.loop(builder, num_heads, [], one_head)
        return context.get_dummy_value()

    return types.none(kind, head_dim, *(types.int64,) * 6), codegen


@intrinsic(prefer_literal=True)
def score_packed_keys(
    typingctx: Any, head_dim: Any, queries: Any, q: Any, last_query: Any, packed: Any, out: Any, stride: Any
) -> tuple[Any, Callable[..., Any]] | None:
    """out[h, k] = q[h] . key[k] of `PACKED_KEYS` keys, float32, each summed in the very order of `score_keys`.

    queries: a literal, at most `queries_at_once`; queries beyond last_query repeat it. packed: float32 [d, keys].
    stride: bytes from one query of out to the next.
    """
    literals = vec.literals(head_dim, queries)
    if literals is None:
        return None
    size, count = literals
    lanes = lanes_of(size)
    vector = ir.VectorType(vec.F32, PACKED_KEYS)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, _, q_at, last, packed_at, out_at, out_stride = args
        numbers: list[Any] = []
        for query in range(count):
            wanted = vec.integer(query)
            numbers.append(builder.select(builder.icmp_signed("<", wanted, last), wanted, last))
        rows = [builder.add(q_at, builder.mul(number, vec.integer(4 * size))) for number in numbers]

        def one_lane(lane: int) -> list[Any]:
            """What `score_keys` sums in this lane, for all keys, of each query."""
            totals: list[Any] = []
            for i in range(lane, size, lanes):
                key = vec.load(builder, vec.plus(builder, packed_at, 4 * PACKED_KEYS * i), vector)
                asked = [
                    vec.splat(builder, vec.load(builder, vec.plus(builder, row, 4 * i), vec.F32), vector)
                    for row in rows
                ]
                if i == lane:
                    totals = [builder.fmul(query, key) for query in asked]
                else:
                    totals = [
                        vec.fma(builder, query, key, total, PACKED_KEYS)
                        for query, total in zip(asked, totals, strict=True)
                    ]
            return totals

        def lanes_from(first: int, step: int) -> list[Any]:
            """The sum of every `step`-th lane from `first` on."""
            if step == lanes:
                return one_lane(first)
            low, high = lanes_from(first, 2 * step), lanes_from(first + step, 2 * step)
            return [builder.fadd(x, y) for x, y in zip(low, high, strict=True)]

        for number, total in zip(numbers, lanes_from(0, 1), strict=True):
            vec.store(builder, total, builder.add(out_at, builder.mul(number, out_stride)))
        return context.get_dummy_value()

    return types.none(head_dim, queries, *(types.int64,) * 5), codegen


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
    literals = vec.literals(head_dim, heads)
    if literals is None:
        return None
    size, count = literals
    lanes, storage, width = lanes_of(size), kind.dtype.name, kind.dtype.bitwidth // 8
    parts = range(0, size, lanes)
    vector = ir.VectorType(vec.F32, lanes)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, _, _, weights_at, weights_stride, last, base_at, offsets_at, num_keys, out_at = args
        numbers: list[Any] = []
        for head in range(count):
            wanted = vec.integer(head)
            numbers.append(builder.select(builder.icmp_signed("<", wanted, last), wanted, last))
        rows = [builder.add(weights_at, builder.mul(number, weights_stride)) for number in numbers]

        def one_key(j: Any, totals: list[Any]) -> list[Any]:
            offset = vec.load(builder, builder.add(offsets_at, builder.mul(j, vec.integer(8))), vec.I64)
            at = builder.add(base_at, offset)
            value = [_stored_vector(builder, vec.plus(builder, at, part * width), storage, lanes) for part in parts]
            results: list[Any] = []
            for i, row in enumerate(rows):
                weight = vec.splat(
                    builder, vec.load(builder, builder.add(row, builder.mul(j, vec.integer(4))), vec.F32), vector
                )
                sums = totals[i * len(value) : (i + 1) * len(value)]
                results += [vec.fma(builder, weight, v, total, lanes) for v, total in zip(value, sums, strict=True)]
            return results

        zero = ir.Constant(vector, None)
        totals = vec.loop(builder, num_keys, [(vector, zero)] * (count * len(parts)), one_key)
        for i, number in enumerate(numbers):
            to = builder.add(out_at, builder.mul(number, vec.integer(4 * size)))
            for part, total in zip(parts, totals[i * len(parts) : (i + 1) * len(parts)], strict=True):
                vec.store(builder, total, vec.plus(builder, to, 4 * part))
        return context.get_dummy_value()

    return types.none(kind, head_dim, heads, *(types.int64,) * 7), codegen

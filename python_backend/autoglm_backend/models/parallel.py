"""Tensor parallel: every rank runs all layers with its share of the heads and of the MLP's width.

Queries, keys, values and gate/up are cut by output, so each rank attends and widens alone; the two products that lead
back to the hidden size are cut by input, and their partial results are added over all ranks (Megatron-LM, arXiv
1909.08053). Embedding, norms of the output and heads stay whole on rank 0. KV heads are repeated where there are
fewer of them than ranks.

Shape legend: K inputs, N outputs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from autoglm_backend.models.config import TextConfig
from autoglm_backend.models.decoder import DecoderLayer, TextDecoder
from autoglm_backend.models.row_parallel import RowParallelLinear
from autoglm_backend.models.weights import Cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    rank: int
    size: int


def check_parallel(config: TextConfig, size: int) -> None:
    """Raises ValueError naming what `size` ranks cannot share."""
    for count, name in ((config.num_heads, "attention heads"), (config.intermediate_size, "intermediate size")):
        if count % size:
            raise ValueError(f"--tensor-parallel-size {size} does not divide the {count} {name} of this checkpoint")
    kv_heads = config.num_kv_heads
    if kv_heads % size and size % kv_heads:
        raise ValueError(
            f"--tensor-parallel-size {size} neither divides the {kv_heads} KV heads of this checkpoint "
            "nor is a multiple of them"
        )


def local_config(config: TextConfig, size: int) -> TextConfig:
    """What one of `size` ranks has of every layer; the hidden size is everyone's."""
    check_parallel(config, size)
    return replace(
        config,
        num_ranks=size,
        num_heads=config.num_heads // size,
        num_kv_heads=max(1, config.num_kv_heads // size),
        intermediate_size=config.intermediate_size // size,
    )


def make_parallel(decoder: TextDecoder) -> None:
    """Let the two products that lead back to the hidden size add up over the ranks; before weights are loaded."""
    for layer in decoder.layers:
        assert isinstance(layer, DecoderLayer)
        attention, mlp = layer.self_attn, layer.mlp
        attention.o_proj = RowParallelLinear(attention.o_proj)
        mlp.down_proj = RowParallelLinear(mlp.down_proj)


def cut_of(name: str, config: TextConfig, shard: Shard) -> Cut | None:
    """The part of a text weight that a rank holds, None for all of it. config: the whole model's."""
    heads, kv_heads = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    width = config.intermediate_size
    match name.rpartition(".")[0].rpartition(".")[2]:
        case "q_proj":
            return Cut(dim=0, size=heads, ranges=(_share(heads, shard),))
        case "k_proj" | "v_proj":
            return Cut(dim=0, size=kv_heads, ranges=(_kv_share(config, shard),))
        case "o_proj":
            return Cut(dim=1, size=heads, ranges=(_share(heads, shard),))
        case "gate_up_proj":
            low, high = _share(width, shard)
            return Cut(dim=0, size=2 * width, ranges=((low, high), (width + low, width + high)))
        case "down_proj":
            return Cut(dim=1, size=width, ranges=(_share(width, shard),))
        case _:
            return None


def _share(count: int, shard: Shard) -> tuple[int, int]:
    part = count // shard.size
    return shard.rank * part, (shard.rank + 1) * part


def _kv_share(config: TextConfig, shard: Shard) -> tuple[int, int]:
    kv_heads = config.num_kv_heads
    local = max(1, kv_heads // shard.size)
    first = shard.rank * kv_heads // shard.size
    return first * config.head_dim, (first + local) * config.head_dim

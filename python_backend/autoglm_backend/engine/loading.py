"""From a checkpoint directory to a decoder's weights on a device, all of them or one rank's share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.models.config import TextConfig
from autoglm_backend.models.decoder import TextDecoder
from autoglm_backend.models.gpu_linear import check_quantization, quantize_layers
from autoglm_backend.models.parallel import Shard, cut_of, local_config, make_parallel
from autoglm_backend.models.shards import checkpoint_shards, text_name
from autoglm_backend.models.weights import Progress, load_module

_WORKER_VOCAB = 512
"""Rows of the embedding and head that a rank above 0 has and never reads."""


def resolve_device(options: EngineOptions, rank: int = 0) -> tuple[torch.device, torch.dtype]:
    """Turn "auto" into a device and a precision, once. Raises ValueError for CUDA devices that are not there."""
    num_gpus = torch.cuda.device_count()
    if options.device == "cuda" and not num_gpus:
        raise ValueError("device is cuda, but torch finds no CUDA GPU")
    is_cuda = options.device == "cuda" or (options.device == "auto" and num_gpus > 0)
    if is_cuda and options.tensor_parallel_size > num_gpus:
        raise ValueError(
            f"--tensor-parallel-size {options.tensor_parallel_size} needs as many GPUs, torch finds {num_gpus}"
        )
    name = options.dtype
    if name == "auto":
        name = "bfloat16" if is_cuda else "float32"
    return torch.device("cuda", rank) if is_cuda else torch.device("cpu"), getattr(torch, name)


def load_decoder(
    checkpoint_dir: Path,
    config: TextConfig,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress | None = None,
    *,
    shard: Shard | None = None,
    quantization: str = "auto",
) -> TextDecoder:
    """Frozen weights of the decoder, or of one rank's share of it: rank 0 has the embedding and the head, others have
    layers only.

    quantization: a GPU gets int8 and fp8 weights rounded already, by way of the host's memory; a CPU's are rounded by
    `prepare_decoder`. Raises CheckpointError naming the file, ValueError for a share that cannot be cut or a
    quantization that this GPU does not have.
    """
    if device.type != "cuda" or quantization in ("auto", "none"):
        return _load(checkpoint_dir, config, device, dtype, progress, shard)
    check_quantization(quantization, device)
    decoder = _load(checkpoint_dir, config, torch.device("cpu"), dtype, progress, shard)
    quantize_layers(decoder, quantization, device)
    return decoder


def _load(
    checkpoint_dir: Path,
    config: TextConfig,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress | None,
    shard: Shard | None,
) -> TextDecoder:
    shards = checkpoint_shards(checkpoint_dir)
    if shard is None:
        decoder = _empty(config, device, dtype, is_parallel=False)
        load_module(decoder, shards, text_name, progress)
        return decoder
    local = local_config(config, shard.size)
    if shard.rank == 0:
        decoder = _empty(local, device, dtype, is_parallel=True)
        load_module(decoder, shards, text_name, progress, cut_of=lambda name: cut_of(name, config, shard))
        return decoder
    small = replace(local, vocab_size=min(config.vocab_size, _WORKER_VOCAB))
    decoder = _empty(small, device, dtype, is_parallel=True)
    layers = nn.ModuleDict({"layers": decoder.layers})
    load_module(layers, shards, _layer_name, progress, cut_of=lambda name: cut_of(name, config, shard))
    return decoder


def _empty(config: TextConfig, device: torch.device, dtype: torch.dtype, *, is_parallel: bool) -> TextDecoder:
    with torch.device("meta"):
        decoder = TextDecoder(config)
        if is_parallel:
            make_parallel(decoder)
    decoder = decoder.to(dtype).to_empty(device=device)
    if config.tie_word_embeddings:
        # to_empty gives tied parameters storage of their own.
        decoder.lm_head.weight = decoder.embed_tokens.weight
    return decoder.eval().requires_grad_(False)


def _layer_name(stored_name: str) -> str | None:
    name = text_name(stored_name)
    return name if name is not None and name.startswith("layers.") else None

"""Checkpoint names to module names, strict both ways: a missing or surplus tensor is an error that names it.

Tensors are memory-mapped from safetensors and copied straight into the modules, one at a time, so loading needs the
model once in memory and never twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from autoglm_backend.models.config import CheckpointError

TEXT_PREFIX = "model.language_model."
VISION_PREFIX = "model.visual."
HEAD_NAME = "lm_head.weight"

Progress = Callable[[int, int], None]
"""Called with (tensors loaded, tensors in all)."""


def checkpoint_shards(checkpoint_dir: Path) -> list[Path]:
    """The safetensors files of a checkpoint, from its index where there is one. Raises CheckpointError."""
    index = checkpoint_dir / "model.safetensors.index.json"
    if index.exists():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        shards = [checkpoint_dir / name for name in names]
    else:
        shards = [checkpoint_dir / "model.safetensors"]
    for shard in shards:
        if not shard.exists():
            raise CheckpointError(f"{shard}: no such file")
    return shards


def text_name(name: str) -> str | None:
    """TextDecoder's name of a checkpoint tensor, None when it belongs elsewhere."""
    if name == HEAD_NAME:
        return name
    return name[len(TEXT_PREFIX) :] if name.startswith(TEXT_PREFIX) else None


def vision_name(name: str) -> str | None:
    return name[len(VISION_PREFIX) :] if name.startswith(VISION_PREFIX) else None


def load_module(
    module: nn.Module, shards: list[Path], rename: Callable[[str], str | None], progress: Progress | None = None
) -> None:
    """Fill every parameter of `module` from the tensors that `rename` maps to it.

    Raises CheckpointError naming the first missing, surplus or wrongly shaped tensor and its file.
    """
    # A tied head shares its storage with the embedding: the checkpoint may then leave it out.
    wanted = dict(module.named_parameters(remove_duplicate=False))
    filled: set[int] = set()
    unknown: list[str] = []
    done = 0
    for shard, name, tensor in _tensors(shards, rename):
        parameter = wanted.get(name)
        if parameter is None:
            unknown.append(f"{name} in {shard.name}")
            continue
        if parameter.shape != tensor.shape:
            raise CheckpointError(
                f"{shard}: {name} has shape {list(tensor.shape)}, config.json asks for {list(parameter.shape)}"
            )
        with torch.no_grad():
            parameter.copy_(tensor)
        filled.add(id(parameter))
        done += 1
        if progress is not None:
            progress(done, len(wanted))
    missing = [name for name, parameter in wanted.items() if id(parameter) not in filled]
    where = shards[0].parent
    if missing:
        raise CheckpointError(f"{where}: {len(missing)} weights are missing, first {missing[0]}")
    if unknown:
        raise CheckpointError(f"{where}: {len(unknown)} weights are not part of this model, first {unknown[0]}")


def _tensors(shards: list[Path], rename: Callable[[str], str | None]) -> Iterator[tuple[Path, str, Tensor]]:
    for shard in shards:
        try:
            with safe_open(shard, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                    ours = rename(name)
                    if ours is not None:
                        yield shard, ours, file.get_tensor(name)
        except SafetensorError as error:
            raise CheckpointError(f"{shard}: damaged or truncated safetensors file ({error})") from error

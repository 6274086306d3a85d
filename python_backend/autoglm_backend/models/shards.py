"""The safetensors files of a checkpoint and the names in them, read without torch: the launcher checks them first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from autoglm_backend.models.json_table import CheckpointError

TEXT_PREFIX = "model.language_model."
VISION_PREFIX = "model.visual."
HEAD_NAME = "lm_head.weight"
INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"


def checkpoint_shards(checkpoint_dir: Path) -> list[Path]:
    """The safetensors files of a checkpoint, from its index where there is one. Raises CheckpointError."""
    index = checkpoint_dir / INDEX_NAME
    if not index.exists():
        shards = [checkpoint_dir / SINGLE_NAME]
    else:
        shards = [checkpoint_dir / name for name in sorted(set(_weight_map(index).values()))]
    for shard in shards:
        if not shard.is_file():
            listed = f", listed in {index.name}" if index.exists() else ""
            raise CheckpointError(f"{shard}: no such file{listed}")
    return shards


def check_shards(checkpoint_dir: Path) -> None:
    """Open every shard and compare it with the index, without torch. Raises CheckpointError naming the file.

    Found here are a shard whose header or length does not fit what it claims, and weights of neither tower.
    """
    held: dict[str, set[str]] = {}
    for shard in checkpoint_shards(checkpoint_dir):
        held[shard.name] = set(stored_shapes(shard))
        strangers = [name for name in held[shard.name] if text_name(name) is None and vision_name(name) is None]
        if strangers:
            raise CheckpointError(
                f"{shard}: {len(strangers)} weights are not part of this model, first {min(strangers)}"
            )
    index = checkpoint_dir / INDEX_NAME
    if not index.exists():
        return
    for name, file in _weight_map(index).items():
        if name not in held[file]:
            raise CheckpointError(f"{index}: weight_map.{name} names {file}, which does not hold that tensor")


def text_name(name: str) -> str | None:
    """TextDecoder's name of a checkpoint tensor, None when it belongs elsewhere."""
    if name == HEAD_NAME:
        return name
    return name[len(TEXT_PREFIX) :] if name.startswith(TEXT_PREFIX) else None


def vision_name(name: str) -> str | None:
    return name[len(VISION_PREFIX) :] if name.startswith(VISION_PREFIX) else None


def _weight_map(index: Path) -> dict[str, str]:
    try:
        names: Any = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{index}: not valid JSON ({error})") from error
    except (KeyError, TypeError):
        raise CheckpointError(f"{index}: weight_map is missing") from None
    if not isinstance(names, dict) or not names or not all(_is_file_name(name) for name in names.values()):
        raise CheckpointError(f"{index}: weight_map must name a file of this folder for each tensor")
    return names


def _is_file_name(name: Any) -> bool:
    return isinstance(name, str) and Path(name).name == name


def stored_shapes(shard: Path) -> dict[str, list[int]]:
    """Name to shape of every tensor in a file. Raises CheckpointError for one that is missing or damaged."""
    if not shard.is_file():
        raise CheckpointError(f"{shard}: no such file")
    try:
        with safe_open(shard, framework="np") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{shard}: damaged or truncated safetensors file ({error})") from error

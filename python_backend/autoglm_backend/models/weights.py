"""Checkpoint names to module names, strict both ways: a missing or surplus tensor is an error that names it.

Every shard is checked before the first byte is copied. Tensors are memory-mapped from safetensors and copied straight
into the modules, one at a time, so loading needs the model once in memory and never twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from autoglm_backend.models.json_table import CheckpointError
from autoglm_backend.models.shards import stored_shapes

# Pages of a mapped file count as this process's memory until it is closed, so a shard is opened anew after so much.
_REMAP_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadProgress:
    tensors: int
    of_tensors: int
    bytes: int
    """Of the modules' parameters, not of the file: the two may differ in precision."""
    of_bytes: int


Progress = Callable[[LoadProgress], None]
"""Called after each tensor, in the loading thread."""
Rename = Callable[[str], str | None]
"""A checkpoint's name of a tensor to the module's, None when it belongs elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The part of a stored tensor that a parameter takes: index ranges of one dimension, laid end to end."""

    dim: int
    size: int
    """Of the whole in that dimension."""
    ranges: tuple[tuple[int, int], ...]


CutOf = Callable[[str], Cut | None]
"""A module's name of a tensor to the part it takes, None for all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    shard: Path
    stored_name: str
    name: str


def load_module(
    module: nn.Module,
    shards: Sequence[Path],
    rename: Rename,
    progress: Progress | None = None,
    *,
    cut_of: CutOf = lambda name: None,
) -> None:
    """Fill every parameter of `module` from the tensors that `rename` maps to it.

    cut_of: parts of tensors; nothing else of them is read.

    Raises CheckpointError naming the first missing, surplus or wrongly shaped tensor and its file, before anything
    was copied.
    """
    # A tied head shares its storage with the embedding: the checkpoint may then leave it out.
    wanted = dict(module.named_parameters(remove_duplicate=False))
    entries = _checked_entries(wanted, shards, rename, cut_of)
    of_bytes = sum(_num_bytes(wanted[entry.name]) for entry in entries)
    done = done_bytes = 0
    for batch in _batches(entries, wanted):
        with safe_open(batch[0].shard, framework="pt") as file:
            for entry in batch:
                parameter = wanted[entry.name]
                with torch.no_grad():
                    _fill(parameter, file, entry.stored_name, cut_of(entry.name))
                done, done_bytes = done + 1, done_bytes + _num_bytes(parameter)
                if progress is not None:
                    progress(LoadProgress(tensors=done, of_tensors=len(entries), bytes=done_bytes, of_bytes=of_bytes))


def _fill(parameter: nn.Parameter, file: Any, stored_name: str, cut: Cut | None) -> None:
    if cut is None:
        parameter.copy_(file.get_tensor(stored_name))
        return
    stored = file.get_slice(stored_name)
    at = 0
    for low, high in cut.ranges:
        part = stored[low:high] if cut.dim == 0 else stored[:, low:high]
        parameter.narrow(cut.dim, at, high - low).copy_(part)
        at += high - low


def _checked_entries(
    wanted: dict[str, nn.Parameter], shards: Sequence[Path], rename: Rename, cut_of: CutOf
) -> list[_Entry]:
    entries: list[_Entry] = []
    unknown: list[str] = []
    for shard in shards:
        for stored_name, shape in stored_shapes(shard).items():
            name = rename(stored_name)
            if name is None:
                continue
            parameter = wanted.get(name)
            if parameter is None:
                unknown.append(f"{stored_name} in {shard.name}")
                continue
            expected = list(parameter.shape)
            if (cut := cut_of(name)) is not None:
                expected[cut.dim] = cut.size
            if expected != shape:
                raise CheckpointError(f"{shard}: {stored_name} has shape {shape}, config.json asks for {expected}")
            entries.append(_Entry(shard=shard, stored_name=stored_name, name=name))
    filled = {id(wanted[entry.name]) for entry in entries}
    missing = [name for name, parameter in wanted.items() if id(parameter) not in filled]
    where = shards[0] if len(shards) == 1 else shards[0].parent
    if missing:
        raise CheckpointError(f"{where}: {len(missing)} weights are missing, first {missing[0]}")
    if unknown:
        raise CheckpointError(f"{where}: {len(unknown)} weights are not part of this model, first {unknown[0]}")
    # transformers ties too, and never looks at a tied head that was stored all the same
    first_name = {id(parameter): name for name, parameter in reversed(wanted.items())}
    found = {entry.name for entry in entries}
    return [e for e in entries if e.name == (first := first_name[id(wanted[e.name])]) or first not in found]


def _batches(entries: Sequence[_Entry], wanted: dict[str, nn.Parameter]) -> list[list[_Entry]]:
    """The entries in order, cut at the end of each shard and after each _REMAP_BYTES."""
    batches: list[list[_Entry]] = []
    size = 0
    for entry in entries:
        if not batches or batches[-1][0].shard != entry.shard or size >= _REMAP_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(entry)
        size += _num_bytes(wanted[entry.name])
    return batches


def _num_bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()

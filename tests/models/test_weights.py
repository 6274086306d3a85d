"""Loading: strict both ways, before a byte is copied, and with the weights in memory once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny_checkpoint import write_checkpoint
from torch import nn

from autoglm_backend.models.config import CheckpointError
from autoglm_backend.models.shards import check_shards, checkpoint_shards
from autoglm_backend.models.weights import LoadProgress, load_module


def sharded(directory: Path) -> Path:
    """The tiny checkpoint in two shards with an index."""
    write_checkpoint(directory)
    single = directory / "model.safetensors"
    tensors = load_file(single)
    single.unlink()
    names = sorted(tensors)
    half = len(names) // 2
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[:half], names[half:]), start=1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, directory / file)
        weight_map |= dict.fromkeys(part, file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    return directory


def test_a_sharded_checkpoint_passes(tmp_path: Path) -> None:
    check_shards(sharded(tmp_path))
    assert len(checkpoint_shards(tmp_path)) == 2


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    (sharded(tmp_path) / "model-00002-of-00002.safetensors").unlink()

    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors: no such file, listed in"):
        check_shards(tmp_path)


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    shard = sharded(tmp_path) / "model-00001-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-8])

    with pytest.raises(CheckpointError, match=r"model-00001-of-00002\.safetensors: damaged or truncated"):
        check_shards(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": {}}', '{"weight_map": {"a": "../x"}}'])
def test_a_damaged_index_is_named(tmp_path: Path, text: str) -> None:
    (sharded(tmp_path) / "model.safetensors.index.json").write_text(text, encoding="utf-8")

    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json: "):
        check_shards(tmp_path)


def test_an_index_that_promises_what_a_shard_has_not_is_named(tmp_path: Path) -> None:
    index = sharded(tmp_path) / "model.safetensors.index.json"
    raw = json.loads(index.read_text(encoding="utf-8"))
    raw["weight_map"]["model.visual.new"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(raw), encoding="utf-8")

    with pytest.raises(CheckpointError, match=r"weight_map\.model\.visual\.new names model-00001"):
        check_shards(tmp_path)


def test_a_weight_of_neither_tower_is_named(tmp_path: Path) -> None:
    save_file({"model.audio.w": torch.zeros(1)}, tmp_path / "model.safetensors")

    with pytest.raises(CheckpointError, match=r"1 weights are not part of this model, first model\.audio\.w"):
        check_shards(tmp_path)


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        ({"weight": torch.zeros(3, 2)}, "1 weights are missing, first bias"),
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(3), "c": torch.zeros(1)}, "not part of this model, first c"),
        ({"weight": torch.zeros(2, 3), "bias": torch.zeros(3)}, r"weight has shape \[2, 3\], config.json asks"),
    ],
)
def test_nothing_is_copied_from_a_file_that_does_not_fit(
    tmp_path: Path, tensors: dict[str, torch.Tensor], complaint: str
) -> None:
    save_file(tensors, tmp_path / "m.safetensors")
    module = nn.Linear(2, 3)
    before = module.weight.detach().clone()

    with pytest.raises(CheckpointError, match=complaint):
        load_module(module, [tmp_path / "m.safetensors"], lambda name: name)
    torch.testing.assert_close(module.weight.detach(), before)


def test_a_stored_head_of_a_tied_model_is_left_alone(tmp_path: Path) -> None:
    save_file({"b.weight": torch.ones(2, 2), "a.weight": torch.zeros(2, 2)}, tmp_path / "m.safetensors")
    tied = nn.ModuleDict({"b": nn.Linear(2, 2, bias=False), "a": nn.Linear(2, 2, bias=False)})
    tied["a"].weight = tied["b"].weight

    load_module(tied, [tmp_path / "m.safetensors"], lambda name: name)

    torch.testing.assert_close(tied["a"].weight.detach(), torch.ones(2, 2))


def test_progress_counts_tensors_and_bytes(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3, 2), "bias": torch.zeros(3)}, tmp_path / "m.safetensors")
    seen: list[LoadProgress] = []

    load_module(nn.Linear(2, 3), [tmp_path / "m.safetensors"], lambda name: name, seen.append)

    assert seen[-1] == LoadProgress(tensors=2, of_tensors=2, bytes=36, of_bytes=36)


def memory_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def test_the_peak_of_memory_is_the_weights_and_a_fifth(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({f"{i}.weight": torch.zeros(1024, 5120, dtype=torch.bfloat16) for i in range(20)}, path)  # 210 MB
    with torch.device("meta"):
        module = nn.ModuleList([nn.Linear(5120, 1024, bias=False) for _ in range(20)])
    module = module.to(torch.bfloat16).to_empty(device="cpu")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = memory_bytes("VmRSS")

    load_module(module, [path], lambda name: name)

    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    assert memory_bytes("VmHWM") - before < 1.2 * weights

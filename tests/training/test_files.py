"""Sidecars are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from autoglm_training import files
from autoglm_training.files import save_json, save_tensors


def test_a_full_disk_keeps_the_last_good_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gates.safetensors"
    save_tensors({"a": torch.ones(3)}, path)

    def full_disk(tensors: object, partial: Path, metadata: object) -> None:
        Path(partial).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_tensors({"a": torch.zeros(3)}, path)
    assert load_file(path)["a"].tolist() == [1, 1, 1]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_kill_before_the_move_keeps_the_last_good_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "certificate.json"
    save_json({"delta": 0.02}, path)

    def killed(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        save_json({"delta": 0.5}, path)
    assert "0.02" in path.read_text(encoding="utf-8")


def test_tensors_may_be_read_by_everyone(tmp_path: Path) -> None:
    save_tensors({"a": torch.ones(1)}, tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").stat().st_mode & 0o777 == 0o644

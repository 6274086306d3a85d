"""Training state survives interruptions: exact resume, and a failed save leaves the last good file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from autoglm_training import checkpoint
from autoglm_training.checkpoint import load_training, save_atomically, save_training


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model(torch.randn(4, 3)).pow(2).mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_resumed_training_equals_uninterrupted(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    train_step(model, optimizer)
    save_training(tmp_path / "state.pt", {"model": model}, optimizer, {"step": 1})
    train_step(model, optimizer)
    other = nn.Linear(3, 2)
    other_optimizer = torch.optim.AdamW(other.parameters())
    assert load_training(tmp_path / "state.pt", {"model": other}, other_optimizer) == {"step": 1}
    train_step(other, other_optimizer)
    torch.testing.assert_close(other.weight, model.weight, rtol=0, atol=0)


def test_failed_save_keeps_the_last_good_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.pt"
    save_atomically({"step": 1}, path)

    def full_disk(state: object, file: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_atomically({"step": 2}, path)
    monkeypatch.undo()
    assert torch.load(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]

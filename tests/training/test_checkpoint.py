"""Training state survives interruptions: exact resume, and a damaged file is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

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


@pytest.mark.parametrize("kept", [0, 100, -300])
def test_a_state_that_was_cut_short_is_named(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "state.pt"
    model = nn.Linear(3, 2)
    save_training(path, {"model": model}, torch.optim.AdamW(model.parameters()), {"step": 1})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=re.escape(f"{path} is damaged or is no training state")):
        load_training(path, {"model": model}, None)


@pytest.mark.parametrize(("name", "told"), [("other", "has no 'other'"), ("model", "size mismatch for weight")])
def test_a_state_of_another_stage_or_shape_is_named(tmp_path: Path, name: str, told: str) -> None:
    path = tmp_path / "state.pt"
    model = nn.Linear(3, 2)
    save_training(path, {"model": model}, torch.optim.AdamW(model.parameters()), {"step": 1})
    with pytest.raises(ValueError, match=f"is not a state of this stage: .*{told}"):
        load_training(path, {name: nn.Linear(5, 2)}, None)


def test_a_state_from_before_gpus_were_saved_resumes(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    save_training(path, {"model": model}, optimizer, {"step": 1})
    state = torch.load(path, weights_only=False)
    del state["cuda_random"]
    save_atomically(state, path)
    assert load_training(path, {"model": model}, optimizer) == {"step": 1}


def test_the_random_state_of_every_gpu_is_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is needed to see which states are saved and handed back."""
    path, states = tmp_path / "state.pt", [torch.tensor([1], dtype=torch.uint8), torch.tensor([2], dtype=torch.uint8)]
    restored: list[list[int]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", lambda all_: restored.extend(s.tolist() for s in all_))
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters())
    save_training(path, {"model": model}, optimizer, {"step": 1})
    load_training(path, {"model": model}, optimizer)
    assert restored == [[1], [2]]

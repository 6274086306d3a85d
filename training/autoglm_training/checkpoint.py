"""Training state on disk: a kill or a full disk in the middle of saving never spoils the last good file."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from autoglm_training.files import write_atomically


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write `state` to `path`. Raises OSError; the file there is then as before."""
    write_atomically(path, lambda partial: torch.save(state, partial))


def save_training(path: Path, modules: dict[str, nn.Module], optimizer: Optimizer, progress: dict[str, Any]) -> None:
    """Modules, optimizer, step counters and random state in one file."""
    state = {
        "modules": {name: module.state_dict() for name, module in modules.items()},
        "optimizer": optimizer.state_dict(),
        "progress": progress,
        "random": (random.getstate(), torch.get_rng_state()),
    }
    save_atomically(state, path)


def load_training(
    path: Path, modules: dict[str, nn.Module], optimizer: Optimizer | None, device: str = "cpu"
) -> dict[str, Any]:
    """Restore what `save_training` wrote; returns the progress. Raises FileNotFoundError or KeyError."""
    # Our own file: it holds Python's random state, which the weights-only loader refuses.
    state = torch.load(path, map_location=device, weights_only=False)
    for name, module in modules.items():
        module.load_state_dict(state["modules"][name])
    if optimizer is not None:
        optimizer.load_state_dict(state["optimizer"])
        random.setstate(state["random"][0])
        torch.set_rng_state(state["random"][1].cpu())
    return state["progress"]


def load_modules(path: Path, modules: dict[str, nn.Module], device: str = "cpu") -> dict[str, Any]:
    """Only the named modules, for the stage that follows."""
    return load_training(path, modules, None, device)

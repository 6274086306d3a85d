"""Training state on disk: a kill or a full disk in the middle of saving never spoils the last good file."""

from __future__ import annotations

import pickle
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


def load_state(path: Path, device: str = "cpu") -> dict[str, Any]:
    """What `save_atomically` wrote. Raises OSError, or ValueError for a file that is damaged or is no such state."""
    try:
        # Our own file: it holds Python's random state, which the weights-only loader refuses.
        state = torch.load(path, map_location=device, weights_only=False)
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        # A file that was cut short may end in "Invalid argument" of no file; one that cannot be opened is named.
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise ValueError(f"{path} is damaged or is no training state: {_first_line(error)}") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} is no training state: it holds a {type(state).__name__}")
    return state


def save_training(path: Path, modules: dict[str, nn.Module], optimizer: Optimizer, progress: dict[str, Any]) -> None:
    """Modules, optimizer, step counters and random state in one file. Raises OSError."""
    state = {
        "modules": {name: module.state_dict() for name, module in modules.items()},
        "optimizer": optimizer.state_dict(),
        "progress": progress,
        "random": (random.getstate(), torch.get_rng_state()),
        # Dropout on a GPU draws from the GPU's own state.
        "cuda_random": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    save_atomically(state, path)


def load_training(
    path: Path, modules: dict[str, nn.Module], optimizer: Optimizer | None, device: str = "cpu"
) -> dict[str, Any]:
    """Restore what `save_training` wrote; returns the progress.

    Raises OSError, or ValueError for a damaged file or one of another stage or shape.
    """
    state = load_state(path, device)
    try:
        for name, module in modules.items():
            module.load_state_dict(state["modules"][name])
        if optimizer is not None:
            optimizer.load_state_dict(state["optimizer"])
            random.setstate(state["random"][0])
            torch.set_rng_state(state["random"][1].cpu())
            # Files of runs without a GPU have none; one of more GPUs than there are now says nothing about these.
            generators = state.get("cuda_random", [])
            if generators and torch.cuda.is_available() and len(generators) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all([generator.cpu() for generator in generators])
        return state["progress"]
    except KeyError as error:
        raise ValueError(f"{path} is not a state of this stage: it has no {error}") from error
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is not a state of this stage: {_first_line(error)}") from error


def load_modules(path: Path, modules: dict[str, nn.Module], device: str = "cpu") -> dict[str, Any]:
    """Only the named modules, for the stage that follows. Raises as `load_training`."""
    return load_training(path, modules, None, device)


def _first_line(error: Exception) -> str:
    """What torch says, without the pages that follow."""
    return " ".join((str(error).splitlines() or [type(error).__name__])[:2]).strip()

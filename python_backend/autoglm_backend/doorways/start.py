"""What every doorway reads at its start."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

from autoglm_backend import triton_io
from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.models.config import CheckpointError
from autoglm_backend.preprocess.image import ImageError


def checkpoint_dir(arguments: triton_io.ModelArguments) -> Path:
    """The parameter of that name, which the launcher sets. Raises CheckpointError."""
    path = arguments.parameters.get("checkpoint_dir")
    if not path:
        raise CheckpointError("config.pbtxt has no parameter checkpoint_dir; `autoglm serve` sets it")
    return Path(path)


def device(arguments: triton_io.ModelArguments) -> str:
    """The parameter `device`, made exact where Triton gave this instance a GPU."""
    wanted = arguments.parameters.get("device", "auto")
    if wanted != "cpu" and arguments.kind == "GPU":
        return f"cuda:{arguments.device_id}"
    return wanted


def engine_options(arguments: triton_io.ModelArguments) -> EngineOptions:
    """The parameter `engine_options` (JSON). Raises ValueError naming an unknown or wrong option."""
    given = json.loads(arguments.parameters.get("engine_options") or "{}")
    return EngineOptions.from_json({"device": arguments.parameters.get("device", "auto"), **given})


@contextlib.contextmanager
def clear_start_errors() -> Iterator[None]:
    """What an operator can mend becomes one sentence in Triton's log; the rest keeps its traceback."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        yield
    except (CheckpointError, ImageError, ValueError) as error:
        raise triton_io.model_error(str(error)) from None

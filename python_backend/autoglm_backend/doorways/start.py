"""What every doorway reads at its start."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path

from autoglm_backend import status_lines, triton_io
from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.models.config import CheckpointError
from autoglm_backend.models.weights import LoadProgress, Progress
from autoglm_backend.profiles import STANDARD, Profile
from autoglm_backend.status_lines import Loading, Refused

_PROGRESS_PERIOD_S = 0.2


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


def profile(arguments: triton_io.ModelArguments) -> Profile:
    """The parameter `profile` (JSON), STANDARD without one. Raises ValueError naming an unknown or wrong field."""
    given = arguments.parameters.get("profile")
    return Profile.from_json(given) if given else STANDARD


def loading_progress(arguments: triton_io.ModelArguments) -> Progress:
    """Tells the launcher how far the weights of this model are."""
    said_s = -math.inf

    def tell(progress: LoadProgress) -> None:
        nonlocal said_s
        is_last = progress.tensors == progress.of_tensors
        if not is_last and time.monotonic() - said_s < _PROGRESS_PERIOD_S:
            return
        said_s = time.monotonic()
        triton_io.show(
            status_lines.write(
                Loading(
                    model=arguments.name,
                    tensors=progress.tensors,
                    of_tensors=progress.of_tensors,
                    bytes=progress.bytes,
                    of_bytes=progress.of_bytes,
                )
            )
        )

    return tell


@contextlib.contextmanager
def clear_start_errors() -> Iterator[None]:
    """What an operator can mend becomes one sentence in Triton's log; the rest keeps its traceback."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        yield
    except ValueError as error:  # CheckpointError is one
        triton_io.show(status_lines.write(Refused(message=str(error))))
        raise triton_io.model_error(str(error)) from None

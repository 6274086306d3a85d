"""What a model's process tells the launcher on its standard output, one JSON line each: how loading goes, a refusal
that ends the start, a warning. Any other line is for the log only."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

PREFIX = "[AUTOGLM] "
RUN_FOLDER_VARIABLE = "AUTOGLM_RUN_FOLDER"
"""Set by the launcher for Triton's processes: a folder that they share and that goes away with the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """Weights of one Triton model on their way from disk to memory."""

    model: str
    tensors: int
    of_tensors: int
    bytes: int
    of_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The server cannot start with this checkpoint or these options; one sentence for the operator."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something the operator should know, while the server goes on."""

    message: str


StatusLine = Loading | Refused | Notice
_KINDS: dict[str, type[StatusLine]] = {"loading": Loading, "refused": Refused, "notice": Notice}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def write(status: StatusLine) -> str:
    return PREFIX + json.dumps({"kind": _NAMES[type(status)], **asdict(status)}, ensure_ascii=False)


def read(line: str) -> StatusLine | None:
    """The status that a line carries (Triton may put words of its own in front), None for any other line."""
    _, found, text = line.partition(PREFIX)
    if not found:
        return None
    try:
        raw: dict[str, Any] = json.loads(text)
        return _KINDS[raw.pop("kind")](**raw)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # a user's text in a log line may look like one

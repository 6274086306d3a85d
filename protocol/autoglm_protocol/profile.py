"""How long to profile the decoder, as callers ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoglm_protocol.errors import InvalidRequestError

MAX_SECONDS = 60.0
MAX_STEPS = 200
"""A step of the default checkpoint is some 2000 events; the engine stands still 3 us for each when the profile ends."""
DEFAULT_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileBounds:
    """A profile ends with whichever comes first."""

    seconds: float = DEFAULT_SECONDS
    steps: int = MAX_STEPS
    """Steps of the engine: each runs every sequence that decodes once, and pieces of prompts."""

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= MAX_SECONDS:
            raise InvalidRequestError(f"seconds must be above 0 and at most {MAX_SECONDS:g}", param="seconds")
        if not 1 <= self.steps <= MAX_STEPS:
            raise InvalidRequestError(f"steps must be 1 to {MAX_STEPS}", param="steps")

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> ProfileBounds:
        """Steps alone may take as long as MAX_SECONDS. Raises InvalidRequestError naming the field."""
        for name in raw:
            if name not in ("seconds", "steps"):
                raise InvalidRequestError(f"{name[:64]} is not a field of a profile", param=name[:64])
        seconds, steps = raw.get("seconds"), raw.get("steps")
        if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float)):
            raise InvalidRequestError("seconds must be a number", code="invalid_type", param="seconds")
        if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int)):
            raise InvalidRequestError("steps must be a whole number", code="invalid_type", param="steps")
        if seconds is None:
            seconds = DEFAULT_SECONDS if steps is None else MAX_SECONDS
        return cls(seconds=seconds, steps=MAX_STEPS if steps is None else steps)

    def to_json(self) -> dict[str, float]:
        return {"seconds": self.seconds, "steps": self.steps}

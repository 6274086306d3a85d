"""When the steps of a request began and ended inside Triton: what the gateway makes spans of.

Times are nanoseconds since 1970 on the clock of the machine that Triton runs on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

StepAttributes = Mapping[str, str | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    name: str
    start_ns: int
    end_ns: int
    attributes: StepAttributes = field(default_factory=dict[str, "str | int"])
    first_token_ns: int | None = None
    """Of the step that decodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """A request from its arrival in the model `autoglm_phone` to its end, and what it did meanwhile."""

    start_ns: int
    end_ns: int
    steps: tuple[Step, ...]
    """Each lies within the whole; encoders may run at the same time."""

    def to_json(self) -> dict[str, Any]:
        steps = [[s.name, s.start_ns, s.end_ns, dict(s.attributes), s.first_token_ns] for s in self.steps]
        return {"start_ns": self.start_ns, "end_ns": self.end_ns, "steps": steps}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Steps:
        steps = (
            Step(name=name, start_ns=start_ns, end_ns=end_ns, attributes=attributes, first_token_ns=first_token_ns)
            for name, start_ns, end_ns, attributes, first_token_ns in raw["steps"]
        )
        return cls(start_ns=raw["start_ns"], end_ns=raw["end_ns"], steps=tuple(steps))

"""The execution plan: what of the graph one request runs.

Made by the planner from the request and the deployment's profile, never from hidden state: the same request gives the
same plan. Logged, returned to the caller as `dynamic_graph`, and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from autoglm_protocol.errors import InvalidRequestError

VISION = "vision"
SPEECH = "speech"


class ExitMode(str, Enum):
    FIXED = "fixed"
    """Prefill and decode stop at the exit; deeper KV never exists."""
    LOSSLESS = "lossless"
    """Draft shallow, verify deep: the output is full depth's."""
    CERTIFIED = "certified"
    """A token leaves early when its calibrated gate is sure; needs a certificate."""


class DepthBy(str, Enum):
    """What chose the depth."""

    REQUEST = "request"
    DEPLOYMENT = "deployment"
    MODE = "mode"
    """A mode that answers as full depth does, or the dynamic graph being off."""
    RULE = "rule"
    """What the checkpoint's makers measured for this class of request, or that they measured nothing."""
    PROBE = "probe"
    """The checkpoint's router, asked when the prompt has come to the first exit."""
    ABSTAINED = "abstained"
    """The router was asked and left it at full depth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionPlan:
    enabled: bool
    """False when ENABLE_DYNAMIC_GRAPH turned the dynamic graph off: every encoder runs, full depth."""
    run_vision: bool
    run_speech: bool
    num_layers: int
    """Layers of the whole decoder."""
    depth: int
    """Layers that this request may use."""
    exit_mode: ExitMode
    reason: str
    """Why this depth, in words for the log."""
    depth_asked: int | str = "auto"
    """As the request named it, else the deployment: "auto", "full" or a number."""
    depth_by: DepthBy = DepthBy.REQUEST
    """With PROBE, `depth` is what it is if the router abstains."""
    reasoning_budget_tokens: int | None = None
    attention_window: int | None = None
    """Tokens before it, itself included, that a token reads, beside the text's first ones; None is all."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "exit_mode": self.exit_mode.value, "depth_by": self.depth_by.value}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> ExecutionPlan:
        by = DepthBy(raw.get("depth_by", DepthBy.REQUEST))
        fields: dict[str, Any] = {**raw, "exit_mode": ExitMode(raw["exit_mode"]), "depth_by": by}
        return cls(**fields)

    def report(self, *, encoders_run: tuple[str, ...], embedding_cache_hits: int) -> dict[str, Any]:
        """`dynamic_graph` as far as it is known before the first token; the decoder adds what it ran."""
        planned = {VISION: self.run_vision, SPEECH: self.run_speech}
        narrowed = {} if self.attention_window is None else {"attention_window": self.attention_window}
        return {
            "enabled": self.enabled,
            "depth": self.depth,
            "depth_asked": self.depth_asked,
            "depth_by": self.depth_by.value,
            "num_layers": self.num_layers,
            "exit_mode": self.exit_mode.value,
            "reason": self.reason,
            "encoders_run": list(encoders_run),
            "encoders_skipped": [name for name, run in planned.items() if not run],
            "embedding_cache_hits": embedding_cache_hits,
            **narrowed,
        }

    def log_lines(self, *, has_images: bool, has_audio: bool) -> tuple[str, ...]:
        """The lines that operators of this model know from its guides."""
        path = "full" if self.depth == self.num_layers else "shallow"
        vision = "Loading ViT encoder for image processing" if self.run_vision else "Skipping ViT encoder (no image)"
        speech = (
            "Loading speech encoder for audio processing" if self.run_speech else "Skipping speech encoder (no audio)"
        )
        if not self.enabled:
            vision += "" if has_images else " (dynamic graph off)"
            speech += "" if has_audio else " (dynamic graph off)"
        lines = [f"Activating {path} inference path ({self.depth} layers)", vision, speech]
        if self.attention_window is not None:
            lines.append(f"Narrowing attention to the last {self.attention_window} tokens")
        return tuple(f"[DYNAMIC GRAPH] {line}" for line in lines)


def parse_depth(value: Any, exits: tuple[int, ...], num_layers: int) -> int | None:
    """The request field `depth`: "auto" or None -> None, "full" -> num_layers, a number must be one of the exits.

    Raises InvalidRequestError naming the exits there are.
    """
    allowed = sorted({*exits, num_layers})
    if value is None or value == "auto":
        return None
    if value == "full":
        return num_layers
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
        choices = ", ".join(str(d) for d in allowed)
        raise InvalidRequestError(f'depth is {value!r}, must be "auto", "full" or one of {choices}', param="depth")
    return value


def check_attention_window(tokens: Any, least: int | None, exit_mode: ExitMode) -> None:
    """The request field `attention_window`. least: the narrowest that the checkpoint allows, None for none at all.

    Raises InvalidRequestError naming the field.
    """
    if tokens is None:
        return
    field = "attention_window"
    if least is None:
        raise InvalidRequestError("this checkpoint allows no narrower attention window", param=field)
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < least:
        raise InvalidRequestError(
            f"{field} is {tokens!r}, must be a whole number from {least}, the least that this checkpoint allows",
            param=field,
        )
    if exit_mode is ExitMode.CERTIFIED:
        raise InvalidRequestError(
            f'{field} cannot go with exit "certified": a certificate holds for all keys', param=field
        )

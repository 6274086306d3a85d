"""How tokens are chosen: every field that OpenAI and vLLM clients send, with its bounds, once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, cast

from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.grammar import Grammar
from autoglm_protocol.json_types import json_type, whole_number

MAX_STOP_STRINGS = 4
MAX_TOP_LOGPROBS = 20
MAX_CHOICES = 16
MAX_TOKENS = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Frozen and valid by construction; raises InvalidRequestError naming field, value and bound."""

    temperature: float = 1.0
    """0 is greedy, bit for bit the same alone and in a batch."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps every token."""
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict[int, float])
    seed: int | None = None
    max_tokens: int | None = None
    """None: as much as the context leaves."""
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    include_stop_str_in_output: bool = False
    allowed_token_ids: tuple[int, ...] | None = None
    bad_words: tuple[str, ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0
    n: int = 1
    grammar: Grammar | None = None
    """What the answer must match; of a reasoning answer, what follows the thought."""

    def __post_init__(self) -> None:
        _within("temperature", self.temperature, 0.0, 2.0)
        _within("top_p", self.top_p, 0.0, 1.0, open_low=True)
        _within("top_k", self.top_k, -1, 1 << 20)
        _within("min_p", self.min_p, 0.0, 1.0)
        _within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _within("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _within("repetition_penalty", self.repetition_penalty, 0.0, 2.0, open_low=True)
        for token, bias in self.logit_bias.items():
            _within(f"logit_bias.{token}", bias, -100.0, 100.0)
        if self.seed is not None:
            _within("seed", self.seed, -(1 << 63), (1 << 63) - 1)
        if self.max_tokens is not None:
            _within("max_tokens", self.max_tokens, 1, MAX_TOKENS)
        _within("min_tokens", self.min_tokens, 0, self.max_tokens if self.max_tokens is not None else 1 << 20)
        _within("n", self.n, 1, MAX_CHOICES)
        _within("top_logprobs", self.top_logprobs, 0, MAX_TOP_LOGPROBS)
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequestError("top_logprobs needs logprobs: true", param="top_logprobs")
        if len(self.stop) > MAX_STOP_STRINGS:
            raise InvalidRequestError(f"stop has {len(self.stop)} strings, at most {MAX_STOP_STRINGS}", param="stop")
        if any(not text for text in self.stop):
            raise InvalidRequestError("stop must not hold an empty string", param="stop")
        if self.allowed_token_ids == ():
            raise InvalidRequestError("allowed_token_ids allows no token at all", param="allowed_token_ids")

    @property
    def is_deterministic(self) -> bool:
        return self.temperature == 0.0 or self.seed is not None

    def to_json(self) -> dict[str, Any]:
        """Only what differs from the defaults, so that logs and wires stay short."""
        given = {name: getattr(self, name) for name in _FIELDS if getattr(self, name) != getattr(_DEFAULT, name)}
        if self.grammar is not None:
            given["grammar"] = self.grammar.to_json()
        return given

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> SamplingParams:
        """Inverse of `to_json`, of hand-written JSON too. Raises InvalidRequestError for unknown or mistyped fields."""
        known: dict[str, Any] = {}
        for name, value in raw.items():
            if name not in _FIELDS:
                raise InvalidRequestError(f"{name} is not a sampling parameter", code="unknown_parameter", param=name)
            known[name] = _typed(name, value)
        return cls(**known)


_FIELDS = tuple(f.name for f in fields(SamplingParams))
_FLOATS = {
    "temperature",
    "top_p",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
}
_INTS = {"top_k", "seed", "max_tokens", "min_tokens", "top_logprobs", "n"}
_BOOLS = {"ignore_eos", "include_stop_str_in_output", "logprobs"}
_NULLABLE = {"seed", "max_tokens", "allowed_token_ids", "grammar"}


def _typed(name: str, value: Any) -> Any:
    """JSON value -> field value; bool is no number here although Python says so."""
    if value is None and name in _NULLABLE:
        return None
    if name == "grammar":
        return Grammar.from_json(value)
    if name in _FLOATS:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong_type(name, "a number", value)
        return _float(value)
    if name in _INTS:
        number = whole_number(value)
        if number is None:
            raise _wrong_type(name, "an integer", value)
        return number
    if name in _BOOLS:
        if not isinstance(value, bool):
            raise _wrong_type(name, "a boolean", value)
        return value
    if name == "logit_bias":
        return _biases(value)
    if name == "stop" and isinstance(value, str):
        return (value,)
    return _items(name, value, "strings" if name in ("stop", "bad_words") else "integers")


def _biases(value: Any) -> dict[int, float]:
    if not isinstance(value, Mapping):
        raise _wrong_type("logit_bias", "an object", value)
    biases: dict[int, float] = {}
    for token, bias in cast("Mapping[Any, Any]", value).items():
        try:
            token_id = int(token)
        except (TypeError, ValueError):
            message = f"logit_bias has the key {str(token)[:40]!r}, must be a token id"
            raise InvalidRequestError(message, code="invalid_type", param="logit_bias") from None
        if isinstance(bias, bool) or not isinstance(bias, int | float):
            raise _wrong_type(f"logit_bias.{token_id}", "a number", bias)
        biases[token_id] = _float(bias)
    return biases


def _float(value: float) -> float:
    """An integer beyond every float is out of each range, as infinity is."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _items(name: str, value: Any, of: str) -> tuple[Any, ...]:
    """A tuple of "strings" or "integers"; a complaint about one of them is about the field."""
    if not isinstance(value, list | tuple):
        raise _wrong_type(name, f"a string or an array of {of}" if name == "stop" else f"an array of {of}", value)
    items = tuple(item if of == "strings" else whole_number(item) for item in cast("list[Any]", value))
    for index, item in enumerate(items):
        if not isinstance(item, str if of == "strings" else int):
            expected = "a string" if of == "strings" else "an integer"
            raise _wrong_type(name, expected, cast("list[Any]", value)[index], where=f"{name}[{index}]")
    return items


def _wrong_type(name: str, expected: str, value: Any, *, where: str | None = None) -> InvalidRequestError:
    message = f"{where or name} must be {expected}, not {json_type(value)}"
    return InvalidRequestError(message, code="invalid_type", param=name)


def _within(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    if not math.isfinite(value) or value > high or value < low or (open_low and value == low):
        bracket = "(" if open_low else "["
        raise InvalidRequestError(f"{name} is {value}, must be in {bracket}{low}, {high}]", param=name)


_DEFAULT = SamplingParams()

"""What an answer must look like: one grammar of a few well-known kinds, checked for shape and size here.

Whether a schema, an expression or a Lark text makes sense is known to the decoder only, which compiles it before the
request is queued (autoglm_backend.engine.grammar) and refuses what it cannot.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, cast

from autoglm_protocol.actions import ACTION_NAMES, FINISH_SPEC
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.json_types import json_type

MAX_GRAMMAR_BYTES = 64 << 10
MAX_GRAMMAR_CHOICES = 1024
ACTIONS = (*ACTION_NAMES, FINISH_SPEC.name)


class GrammarKind(str, Enum):
    JSON_OBJECT = "json_object"
    """Any JSON object; no value."""
    JSON_SCHEMA = "json_schema"
    """`value`: the schema as JSON text."""
    REGEX = "regex"
    """`value`: a regular expression that the whole answer matches; no look-around, no back-references."""
    CHOICE = "choice"
    """`value`: a JSON list of strings, one of which is the answer."""
    LARK = "lark"
    """`value`: a Lark grammar with the rule `start`, in llguidance's dialect."""
    AUTOGLM_ACTION = "autoglm_action"
    """The phone agent's answer: an optional thought, then one action that `actions.parse_action` reads. `value`: a JSON
    list of the actions that are allowed; empty for all."""


_WITHOUT_VALUE = (GrammarKind.JSON_OBJECT,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """Frozen and well formed by construction; raises InvalidRequestError saying what is wrong."""

    kind: GrammarKind
    value: str = ""
    param: str = field(default="grammar", compare=False)
    """The caller's field that said it: every refusal names it, the decoder's too."""

    def __post_init__(self) -> None:
        if self.kind in _WITHOUT_VALUE:
            if self.value:
                raise self.refusal(f"a grammar of kind {self.kind.value} takes no value")
            return
        if self.kind is GrammarKind.AUTOGLM_ACTION:
            _ = self.actions
        elif not self.value:
            raise self.refusal(f"a grammar of kind {self.kind.value} needs a value")
        # surrogates cannot be written as UTF-8, but JSON can spell them
        size = len(self.value.encode(errors="surrogatepass"))
        if size > MAX_GRAMMAR_BYTES:
            raise self.refusal(f"the grammar has {size} bytes, at most {MAX_GRAMMAR_BYTES} are allowed")
        if self.kind is GrammarKind.CHOICE:
            _ = self.choices
        elif self.kind is GrammarKind.JSON_SCHEMA and not isinstance(self._parsed(), dict):
            raise self.refusal("a JSON schema must be an object")

    @property
    def choices(self) -> tuple[str, ...]:
        """The strings of a grammar of kind CHOICE."""
        parsed = self._parsed()
        items = cast("list[Any]", parsed) if isinstance(parsed, list) else []
        if not items or not all(isinstance(item, str) and item for item in items):
            raise self.refusal("choices must be a list of at least one string, none of them empty")
        if len(items) > MAX_GRAMMAR_CHOICES:
            raise self.refusal(f"there are {len(items)} choices, at most {MAX_GRAMMAR_CHOICES} are allowed")
        return tuple(items)

    @property
    def actions(self) -> tuple[str, ...]:
        """The action names that a grammar of kind AUTOGLM_ACTION allows."""
        if not self.value:
            return ACTIONS
        parsed = self._parsed()
        items = cast("list[Any]", parsed) if isinstance(parsed, list) else []
        if not items or not all(item in ACTIONS for item in items):
            raise self.refusal(f"the value must be a list of at least one of {', '.join(ACTIONS)}")
        return tuple(items)

    @classmethod
    def of_actions(cls, names: Sequence[str]) -> Grammar:
        return cls(kind=GrammarKind.AUTOGLM_ACTION, value=json.dumps(list(names)))

    @classmethod
    def of_choices(cls, choices: list[str] | tuple[str, ...]) -> Grammar:
        return cls(kind=GrammarKind.CHOICE, value=json.dumps(list(choices), ensure_ascii=False))

    @classmethod
    def of_schema(cls, schema: Mapping[str, Any]) -> Grammar:
        return cls(kind=GrammarKind.JSON_SCHEMA, value=json.dumps(schema, ensure_ascii=False))

    def to_json(self) -> dict[str, str]:
        raw = {"kind": self.kind.value}
        if self.value:
            raw["value"] = self.value
        if self.param != "grammar":
            raw["param"] = self.param
        return raw

    @classmethod
    def from_json(cls, raw: Any) -> Grammar:
        """Inverse of `to_json`, of hand-written JSON too. Raises InvalidRequestError."""
        if not isinstance(raw, Mapping):
            message = f"grammar must be an object with kind and value, not {json_type(raw)}"
            raise _refusal(message, code="invalid_type")
        given = cast("Mapping[Any, Any]", raw)
        unknown = sorted(map(str, given.keys() - {"kind", "value", "param"}))
        if unknown:
            raise _refusal(f"grammar has no field {unknown[0]}", code="unknown_parameter")
        kind, value, param = given.get("kind"), given.get("value", ""), given.get("param", "grammar")
        kinds = [known.value for known in GrammarKind]
        if kind not in kinds:
            raise _refusal(f"grammar.kind is {kind!r}, must be one of {', '.join(kinds)}")
        for name, text in (("value", value), ("param", param)):
            if not isinstance(text, str):
                raise _refusal(f"grammar.{name} must be a string, not {json_type(text)}", code="invalid_type")
        return cls(kind=GrammarKind(kind), value=value, param=param)

    def _parsed(self) -> Any:
        try:
            return json.loads(self.value)
        except (ValueError, RecursionError) as error:
            raise self.refusal(f"the grammar's value is not valid JSON: {error}") from None

    def refusal(self, message: str) -> InvalidRequestError:
        """The error to raise about this grammar."""
        return InvalidRequestError(message, param=self.param)


def _refusal(message: str, *, code: str | None = None) -> InvalidRequestError:
    return InvalidRequestError(message, code=code, param="grammar")

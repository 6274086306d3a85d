"""The body of /v1/responses to a ChatDraft: that API without stored state and without OpenAI's own tools."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from autoglm_gateway.answer_format import read_format
from autoglm_gateway.draft import ChatDraft, DraftMessage
from autoglm_gateway.json_fields import JsonFields
from autoglm_gateway.openai_schema import offering, read_settings, refuse_unsupported
from autoglm_gateway.responses_input import read_input
from autoglm_gateway.tools import read_tools
from autoglm_protocol.chat import Role, TextPart
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.grammar import Grammar

_KNOWN = frozenset(
    ("input", "instructions", "max_output_tokens", "reasoning", "text", "truncation", "include", "stream_options")
)
_REFUSED = (
    "background",
    "conversation",
    "logprobs",
    "max_tool_calls",
    "previous_response_id",
    "prompt",
    "top_logprobs",
)
_INCLUDED = ("reasoning.encrypted_content",)
"""Asked for by clients that keep their own history, which they then send as it came."""


def parse_response(body: Any, *, features: frozenset[str]) -> ChatDraft:
    """Raises InvalidRequestError naming the field."""
    fields = JsonFields(body)
    model = fields.required_text("model")
    _refuse(fields)
    given = _as_chat(fields)
    tools = read_tools(given, is_flat=True)
    settings = read_settings(given, features=features, known=_KNOWN)
    draft = replace(settings, model=model, messages=_messages(fields), echo=_echo(fields))
    return offering(draft, tools, features=features)


def _refuse(fields: JsonFields) -> None:
    for name in _REFUSED:
        if fields.raw.get(name):
            raise _unsupported(name)
    if fields.raw.get("truncation") not in (None, "disabled"):
        raise _unsupported("truncation")
    if fields.raw.get("n") not in (None, 1):
        raise _unsupported("n")
    for index, name in enumerate(fields.items("include") or []):
        if name not in _INCLUDED:
            raise _unsupported(f"include[{index}]")


def _unsupported(name: str) -> InvalidRequestError:
    return InvalidRequestError(f"{name} is not supported by this server", code="unsupported_parameter", param=name)


def _as_chat(fields: JsonFields) -> JsonFields:
    """The same settings under the names that chat has for them."""
    raw = dict(fields.raw)
    raw.pop("stream_options", None)  # only about obfuscation here
    if not raw.get("tools"):
        raw.pop("tools", None)  # clients of this API send an empty list
    limit = fields.integer("max_output_tokens")
    if limit is not None:
        if limit < 1:
            raise InvalidRequestError(f"max_output_tokens is {limit}, must be at least 1", param="max_output_tokens")
        raw["max_completion_tokens"] = limit
    reasoning = fields.section("reasoning")
    if reasoning is not None and reasoning.text("effort") is not None:
        raw["reasoning_effort"] = reasoning.text("effort")
    grammar = _grammar(fields)
    if grammar is not None:
        raw["grammar"] = grammar.to_json()
    renamed = JsonFields(raw)
    refuse_unsupported(renamed)
    return renamed


def _grammar(fields: JsonFields) -> Grammar | None:
    text = fields.section("text")
    format = None if text is None else text.section("format")
    return None if format is None else read_format(format, schema_at=None)


def _messages(fields: JsonFields) -> tuple[DraftMessage, ...]:
    instructions = fields.text("instructions")
    system = () if instructions is None else (DraftMessage(role=Role.SYSTEM, parts=(TextPart(text=instructions),)),)
    return (*system, *read_input(fields))


def _echo(fields: JsonFields) -> dict[str, Any]:
    text = fields.section("text")
    shape = {} if text is None else {name: value for name, value in text.raw.items() if value is not None}
    asked: dict[str, Any] = {
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "reasoning": {"effort": None, "summary": None},
        "tool_choice": "auto",
        "tools": [],
        "user": None,
    }
    asked |= {name: fields.raw[name] for name in asked if fields.raw.get(name) is not None}
    return asked | {"text": {"format": {"type": "text"}, **shape}}

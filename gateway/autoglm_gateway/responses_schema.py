"""The body of /v1/responses to a ChatDraft: the core of that API, without stored state and tools."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from autoglm_gateway.answer_format import read_format
from autoglm_gateway.draft import ChatDraft, DraftMessage
from autoglm_gateway.json_fields import JsonFields
from autoglm_gateway.openai_content import read_messages
from autoglm_gateway.openai_schema import read_settings, refuse_tools, refuse_unsupported
from autoglm_protocol.chat import Role, TextPart
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.grammar import Grammar

_KNOWN = frozenset(
    ("input", "instructions", "max_output_tokens", "reasoning", "text", "truncation", "include", "stream_options")
)
_REFUSED = ("previous_response_id", "conversation", "background", "prompt", "max_tool_calls")


def parse_response(body: Any, *, features: frozenset[str]) -> ChatDraft:
    """Raises InvalidRequestError naming the field."""
    fields = JsonFields(body)
    model = fields.required_text("model")
    for name in _REFUSED:
        if fields.raw.get(name):
            raise InvalidRequestError(
                f"{name} is not supported by this server", code="unsupported_parameter", param=name
            )
    if fields.raw.get("truncation") not in (None, "disabled"):
        raise InvalidRequestError(
            "truncation is not supported by this server", code="unsupported_parameter", param="truncation"
        )
    settings = read_settings(_as_chat(fields), features=features, known=_KNOWN)
    messages = _messages(fields)
    return replace(settings, model=model, messages=messages)


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
    refuse_tools(renamed)
    return renamed


def _grammar(fields: JsonFields) -> Grammar | None:
    text = fields.section("text")
    format = None if text is None else text.section("format")
    return None if format is None else read_format(format, schema_at=None)


def _messages(fields: JsonFields) -> tuple[DraftMessage, ...]:
    given = fields.raw.get("input")
    instructions = fields.text("instructions")
    system = () if instructions is None else (DraftMessage(role=Role.SYSTEM, parts=(TextPart(text=instructions),)),)
    if isinstance(given, str):
        return (*system, DraftMessage(role=Role.USER, parts=(TextPart(text=given),)))
    for index, item in enumerate(fields.items("input") or []):
        entry = JsonFields(item, f"input[{index}]")
        if entry.text("type") not in (None, "message"):
            raise InvalidRequestError(f"{entry.where('type')} must be message", param=entry.where("type"))
    return (*system, *read_messages(fields, "input"))

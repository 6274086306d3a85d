"""The body of /v1/responses to a ChatDraft: that API without stored state and without OpenAI's own tools."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from autoglm_gateway.answer_format import read_format
from autoglm_gateway.draft import ChatDraft, DraftMessage
from autoglm_gateway.json_fields import JsonFields
from autoglm_gateway.openai_fields import HARMLESS_VALUES
from autoglm_gateway.openai_schema import check_effort, offering, read_settings, refuse_unsupported
from autoglm_gateway.responses_input import read_input
from autoglm_gateway.tools import read_tools
from autoglm_protocol.chat import Role, TextPart
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.grammar import Grammar
from autoglm_protocol.sampling import MAX_TOKENS

_PLATFORM = ("max_tool_calls", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "user")
"""True of any answer, or about tools that OpenAI runs itself: accepted and repeated."""
_KNOWN = frozenset(
    (
        *_PLATFORM,
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "prompt_cache_options",
        "reasoning",
        "stream_options",
        "text",
        "truncation",
    )
)
_LOGPROBS = "message.output_text.logprobs"
_NOTHING_STORED = ": it stores nothing, send the conversation's items again as input"
_REFUSED = {
    "background": "",
    "context_management": "",
    "conversation": _NOTHING_STORED,
    "logprobs": f": ask for them with include: ['{_LOGPROBS}']",
    "moderation": "",
    "previous_response_id": _NOTHING_STORED,
    "prompt": "",
}
"""With what to do instead."""
_INCLUDED = (
    _LOGPROBS,
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
)
"""All but the first are about items that no answer here has: thoughts come openly, OpenAI's tools do not run."""


def parse_response(body: Any, *, features: frozenset[str]) -> ChatDraft:
    """Raises InvalidRequestError naming the field."""
    fields = JsonFields(body)
    model = fields.required_text("model")
    _refuse(fields)
    logprobs = _asks_for_logprobs(fields)
    if logprobs is not None and "logprobs" not in features:
        raise _unsupported(logprobs)
    given = _as_chat(fields)
    tools = read_tools(given, is_flat=True)
    settings = read_settings(given, features=features, known=_KNOWN)
    draft = replace(settings, model=model, messages=_messages(fields), echo=_echo(fields))
    return offering(draft, tools, features=features)


def _refuse(fields: JsonFields) -> None:
    for name, instead in _REFUSED.items():
        if fields.raw.get(name):
            raise _unsupported(name, instead)
    if fields.raw.get("truncation") not in (None, "disabled"):
        raise _unsupported("truncation")
    if fields.raw.get("n") not in (None, 1):
        raise _unsupported("n")
    for index, name in enumerate(fields.items("include") or []):
        if name not in _INCLUDED:
            raise _unsupported(f"include[{index}]")
    text = fields.section("text")
    if text is not None and text.raw.get("verbosity") not in (None, *HARMLESS_VALUES["verbosity"]):
        raise _unsupported("text.verbosity")
    limit = fields.integer("max_tool_calls")
    if limit is not None and limit < 1:
        raise InvalidRequestError(f"max_tool_calls is {limit}, must be at least 1", param="max_tool_calls")
    fields.section("metadata")


def _asks_for_logprobs(fields: JsonFields) -> str | None:
    """The field that does."""
    if fields.integer("top_logprobs"):
        return "top_logprobs"
    return "include" if _LOGPROBS in (fields.items("include") or []) else None


def _unsupported(name: str, instead: str = "") -> InvalidRequestError:
    return InvalidRequestError(
        f"{name} is not supported by this server{instead}", code="unsupported_parameter", param=name
    )


def _as_chat(fields: JsonFields) -> JsonFields:
    """The same settings under the names that chat has for them."""
    raw = dict(fields.raw)
    fields.section("stream_options")
    raw.pop("stream_options", None)  # only about obfuscation here
    if raw.get("tools") == []:
        del raw["tools"]  # clients of this API send an empty list
    limit = fields.integer("max_output_tokens")
    if limit is not None:
        if not 1 <= limit <= MAX_TOKENS:
            message = f"max_output_tokens is {limit}, must be in [1, {MAX_TOKENS}]"
            raise InvalidRequestError(message, param="max_output_tokens")
        raw["max_completion_tokens"] = limit
    reasoning = fields.section("reasoning")
    effort = None if reasoning is None else reasoning.text("effort")
    if effort is not None:
        check_effort(effort, "reasoning.effort")
        raw["reasoning_effort"] = effort
    if reasoning is not None and reasoning.text("summary") is not None and raw.get("return_reasoning") is None:
        raw["return_reasoning"] = True  # there is no summary: who wants one gets the thought itself
    if _asks_for_logprobs(fields):
        raw["logprobs"] = True
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
        **dict.fromkeys(_PLATFORM),
    }
    asked |= {name: fields.raw[name] for name in asked if fields.raw.get(name) is not None}
    return asked | {"text": {"format": {"type": "text"}, **shape}}

"""OpenAI's chat body to a ChatDraft. Refuses, never drops, what the backend could not honour; touches no media."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from autoglm_gateway.answer_format import answers_with_data, read_grammar
from autoglm_gateway.draft import ChatDraft
from autoglm_gateway.json_fields import JsonFields
from autoglm_gateway.openai_content import read_messages
from autoglm_gateway.openai_fields import (
    EFFORTS,
    HARMLESS_VALUES,
    KNOWN_FIELDS,
    SAMPLING_FIELDS,
    UNSUPPORTED_FIELDS,
)
from autoglm_gateway.tools import Tools, forced, read_tools
from autoglm_protocol.chat import ChatOptions
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.json_types import whole_number
from autoglm_protocol.sampling import SamplingParams


def parse_chat(body: Any, *, features: frozenset[str]) -> ChatDraft:
    """The JSON body of /v1/chat/completions. `features`: see Backend. Raises InvalidRequestError naming the field."""
    fields = JsonFields(body)
    model = fields.required_text("model")
    refuse_unsupported(fields)
    tools = read_tools(fields)
    messages = read_messages(fields)
    draft = replace(read_settings(fields, features=features), model=model, messages=messages)
    return offering(draft, tools, features=features)


def offering(draft: ChatDraft, tools: Tools | None, *, features: frozenset[str]) -> ChatDraft:
    """The request with tools: functions go to the chat template, which refuses them where it has no place for them.

    Raises InvalidRequestError.
    """
    if tools is None:
        return draft
    options = draft.options
    if tools.functions:
        kwargs = {**options.chat_template_kwargs, "tools": [dict(tool) for tool in tools.functions]}
        options = replace(options, chat_template_kwargs=kwargs)
    sampling = forced(draft.sampling, tools)
    check_features(sampling, features)
    return replace(draft, tools=tools, options=options, sampling=sampling)


def refuse_unsupported(fields: JsonFields) -> None:
    for name in UNSUPPORTED_FIELDS & fields.raw.keys():
        value = fields.raw[name]
        if value is not None and value not in HARMLESS_VALUES.get(name, ()):
            raise InvalidRequestError(
                f"{name} is not supported by this server", code="unsupported_parameter", param=name
            )


def refuse_tools(fields: JsonFields) -> None:
    """For endpoints whose answers have no place for calls."""
    if fields.raw.get("tools") or fields.raw.get("tool_choice") not in (None, "none", "auto"):
        name = "tools" if fields.raw.get("tools") else "tool_choice"
        raise InvalidRequestError(f"{name} is not supported by this endpoint", code="unsupported_parameter", param=name)


def read_settings(fields: JsonFields, *, features: frozenset[str], known: frozenset[str] = frozenset()) -> ChatDraft:
    """Everything but model and messages; other endpoints name their own fields in `known`."""
    sampling = _sampling(fields)
    check_features(sampling, features)
    stream = fields.flag("stream", False)
    stream_options = fields.section("stream_options")
    if stream_options is not None and not stream:
        raise InvalidRequestError("stream_options is only allowed with stream: true", param="stream_options")
    continuous = stream_options is not None and stream_options.flag("continuous_usage_stats", False)
    return ChatDraft(
        model="",
        messages=(),
        sampling=sampling,
        options=_options(fields),
        return_reasoning=fields.flag(
            "return_reasoning", fields.flag("include_reasoning", answers_with_data(sampling.grammar))
        ),
        stream=stream,
        include_usage=stream_options is not None and stream_options.flag("include_usage", False),
        continuous_usage=continuous,
        ignored_fields=tuple(sorted(fields.raw.keys() - KNOWN_FIELDS - known)),
    )


def check_features(sampling: SamplingParams, features: frozenset[str]) -> None:
    """Raises InvalidRequestError for what this backend would ignore."""
    for name, asked in (("n", sampling.n > 1), ("logprobs", sampling.logprobs)):
        if asked and name not in features:
            raise InvalidRequestError(
                f"{name} is not supported by this server", code="unsupported_parameter", param=name
            )
    if sampling.grammar is not None and "grammar" not in features:
        name = sampling.grammar.param
        raise InvalidRequestError(f"{name} is not supported by this server", code="unsupported_parameter", param=name)


def _sampling(fields: JsonFields) -> SamplingParams:
    raw = {name: value for name, value in fields.raw.items() if name in SAMPLING_FIELDS and value is not None}
    limit = fields.integer("max_completion_tokens")
    if limit is not None:
        raw["max_tokens"] = limit
    if raw.get("top_k") == -1:
        raw["top_k"] = 0  # vLLM's word for the same
    grammar = read_grammar(fields)
    raw.pop("grammar", None)
    try:
        return replace(SamplingParams.from_json(raw), grammar=grammar)
    except InvalidRequestError as error:
        if error.param == "max_tokens" and limit is not None:
            message = error.message.replace("max_tokens", "max_completion_tokens")
            raise InvalidRequestError(message, code=error.code, param="max_completion_tokens") from None
        raise


def _options(fields: JsonFields) -> ChatOptions:
    template = fields.section("chat_template_kwargs")
    thinking = True if template is None else template.flag("enable_thinking", True)
    effort = fields.text("reasoning_effort")
    if effort is not None:
        check_effort(effort, "reasoning_effort")
        thinking = effort != "none"  # vLLM's reading
    budget = _at_least_0(fields, "thinking_token_budget")
    return ChatOptions(
        depth=_depth(fields),
        exit=fields.text("exit"),
        attention_window=fields.integer("attention_window"),
        enable_thinking=fields.flag("enable_thinking", thinking),
        max_reasoning_tokens=_at_least_0(fields, "max_reasoning_tokens") if budget is None else budget,
        max_reasoning_steps=_at_least_0(fields, "max_reasoning_steps"),
        chat_template_kwargs={} if template is None else dict(template.raw),
        continue_final_message=fields.flag("continue_final_message", False),
        add_generation_prompt=fields.flag("add_generation_prompt", True),
        priority=_int32(fields, "priority") or 0,
        **_pixel_limits(fields),
        return_token_layers=fields.flag("return_token_layers", False),
    )


def _depth(fields: JsonFields) -> int | str | None:
    given = fields.raw.get("depth")
    if given is None or isinstance(given, str):
        return given
    layers = whole_number(given)
    if layers is None:
        raise fields.wrong_type("depth", "a number of layers or a word", given)
    return layers


def check_effort(effort: str, where: str) -> None:
    """Raises InvalidRequestError: a misspelt "none" must not think."""
    if effort not in EFFORTS:
        raise InvalidRequestError(f"{where} is {effort[:40]!r}, must be one of {', '.join(EFFORTS)}", param=where)


def _pixel_limits(fields: JsonFields) -> dict[str, int | None]:
    """max_pixels and min_pixels, ours at the top level or vLLM's inside mm_processor_kwargs."""
    section = fields.section("mm_processor_kwargs")
    for name in section.raw if section is not None else ():
        if name not in ("max_pixels", "min_pixels"):
            where = f"mm_processor_kwargs.{name}"
            raise InvalidRequestError(
                f"{where} is not supported; max_pixels and min_pixels are", code="unsupported_parameter", param=where
            )
    limits: dict[str, int | None] = {}
    for name in ("max_pixels", "min_pixels"):
        inner = None if section is None else section.integer(name)
        value = fields.integer(name) if inner is None else inner
        if value is not None and not 1 <= value < 1 << 31:
            raise InvalidRequestError(f"{name} is {value}, must be a whole number from 1", param=name)
        limits[name] = value
    return limits


def _at_least_0(fields: JsonFields, name: str) -> int | None:
    value = _int32(fields, name)
    if value is not None and value < 0:
        raise InvalidRequestError(f"{name} is {value}, must be at least 0", param=name)
    return value


def _int32(fields: JsonFields, name: str) -> int | None:
    value = fields.integer(name)
    if value is not None and not -(1 << 31) <= value < 1 << 31:
        raise InvalidRequestError(f"{name} is {value}, which does not fit 32 bits", param=name)
    return value

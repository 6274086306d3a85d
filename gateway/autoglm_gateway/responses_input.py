"""The input of /v1/responses to messages: a list of items, where chat has turns with thoughts and calls inside."""

from __future__ import annotations

from dataclasses import replace

from autoglm_gateway.draft import DraftMessage
from autoglm_gateway.json_fields import JsonFields
from autoglm_gateway.openai_content import Conversation
from autoglm_protocol.chat import Role, TextPart, ToolCall
from autoglm_protocol.errors import InvalidRequestError

_KINDS = ("message", "function_call", "function_call_output", "reasoning")


def read_input(fields: JsonFields) -> tuple[DraftMessage, ...]:
    """Raises InvalidRequestError naming the item."""
    given = fields.raw.get("input")
    if isinstance(given, str):
        return (DraftMessage(role=Role.USER, parts=(TextPart(text=given),)),)
    items = fields.items("input")
    if items is None:
        raise InvalidRequestError("input is missing", code="missing_required_parameter", param="input")
    conversation = Conversation()
    messages: list[DraftMessage] = []
    last_kind = "message"
    for index, raw in enumerate(items):
        item = JsonFields(raw, f"input[{index}]")
        kind = item.text("type") or "message"
        message = _read_item(item, kind, conversation)
        if not message.parts and not message.tool_calls:
            continue  # a thought that is kept from us
        same_turn = messages and messages[-1].role is message.role is Role.ASSISTANT
        if same_turn and not kind == last_kind == "message":
            messages[-1] = replace(
                messages[-1],
                parts=messages[-1].parts + message.parts,
                tool_calls=messages[-1].tool_calls + message.tool_calls,
            )
        else:
            messages.append(message)
        last_kind = kind
    if not messages:
        raise InvalidRequestError("input must hold at least one message", param="input")
    return tuple(messages)


def _read_item(item: JsonFields, kind: str, conversation: Conversation) -> DraftMessage:
    if kind == "message":
        return conversation.message(item)
    if kind == "function_call":
        arguments = item.text("arguments") or "{}"
        call = ToolCall(id=item.required_text("call_id"), name=item.required_text("name"), arguments=arguments)
        parts, tool_calls = conversation.called([call])
        return DraftMessage(role=Role.ASSISTANT, parts=parts, tool_calls=tool_calls)
    if kind == "function_call_output":
        if item.raw.get("output") is None:
            where = item.where("output")
            raise InvalidRequestError(f"{where} is missing", code="missing_required_parameter", param=where)
        return conversation.result(item, "output", item.required_text("call_id"))
    if kind == "reasoning":
        return DraftMessage(role=Role.ASSISTANT, parts=_thought(item))
    where = item.where("type")
    raise InvalidRequestError(f"{where} is {kind[:64]!r}, must be one of {', '.join(_KINDS)}", param=where)


def _thought(item: JsonFields) -> tuple[TextPart, ...]:
    parts = (JsonFields(raw, item.where(f"content[{i}]")) for i, raw in enumerate(item.items("content") or []))
    text = "".join(part.required_text("text") for part in parts)
    return (TextPart(text=f"<think>{text}</think>"),) if text else ()

"""OpenAI's messages: roles, text, and references to pictures and sounds, which stay unread here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import orjson

from autoglm_gateway.draft import DraftMessage, DraftPart, MediaKind, MediaRef
from autoglm_gateway.json_fields import JsonFields
from autoglm_protocol.chat import Role, TextPart
from autoglm_protocol.errors import InvalidRequestError

ROLES = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.TOOL,
    "function": Role.TOOL,
}
_TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
_AUDIO_FORMATS = ("wav", "mp3")


def read_messages(fields: JsonFields, name: str = "messages") -> tuple[DraftMessage, ...]:
    """Raises InvalidRequestError naming the message and part."""
    raw = fields.items(name)
    if raw is None:
        raise InvalidRequestError(f"{name} is missing", code="missing_required_parameter", param=name)
    if not raw:
        raise InvalidRequestError(f"{name} must hold at least one message", param=name)
    return tuple(_message(JsonFields(item, f"{name}[{index}]")) for index, item in enumerate(raw))


def _message(message: JsonFields) -> DraftMessage:
    role_name = message.required_text("role")
    role = ROLES.get(role_name)
    if role is None:
        where = message.where("role")
        raise InvalidRequestError(f"{where} is {role_name!r}, must be one of {', '.join(ROLES)}", param=where)
    parts: list[DraftPart] = []
    if role is Role.ASSISTANT:
        reasoning = message.text("reasoning_content")
        if reasoning:
            parts.append(TextPart(text=f"<think>{reasoning}</think>"))  # what was split off goes back in front
    parts.extend(read_content(message, "content", role=role))
    calls = message.items("tool_calls") or []
    parts.extend(_tool_call(JsonFields(call, message.where(f"tool_calls[{i}]"))) for i, call in enumerate(calls))
    if not parts:
        raise InvalidRequestError(f"{message.where('content')} is missing", param=message.where("content"))
    return DraftMessage(role=role, parts=tuple(parts))


def read_content(message: JsonFields, name: str, *, role: Role) -> Sequence[DraftPart]:
    content = message.raw.get(name)
    if content is None:
        return ()
    if isinstance(content, str):
        return (TextPart(text=content),)
    if not isinstance(content, list):
        raise message.wrong_type(name, "a string or a list of parts")
    items = cast("list[Any]", content)
    where = message.where(name)
    return tuple(_part(item, f"{where}[{index}]", role) for index, item in enumerate(items))


def _part(raw: Any, where: str, role: Role) -> DraftPart:
    if isinstance(raw, str):
        return TextPart(text=raw)
    part = JsonFields(raw, where)
    kind = part.required_text("type")
    if kind in _TEXT_PARTS:
        return TextPart(text=part.required_text(_TEXT_PARTS[kind]))
    if kind in ("image_url", "input_image"):
        ref = _url_part(part, "image_url", MediaKind.IMAGE)
    elif kind == "audio_url":
        ref = _url_part(part, "audio_url", MediaKind.AUDIO)
    elif kind == "input_audio":
        ref = _input_audio(part)
    else:
        raise InvalidRequestError(
            f"{part.where('type')} is {kind!r}, supported are text, image_url, input_audio and audio_url",
            param=part.where("type"),
        )
    if role is not Role.USER:
        raise InvalidRequestError(f"{where} is a {ref.kind.value}, which only user messages may hold", param=where)
    return ref


def _url_part(part: JsonFields, name: str, kind: MediaKind) -> MediaRef:
    value = part.raw.get(name)
    if isinstance(value, str):
        return MediaRef(kind=kind, url=value, param=part.where(name))
    section = part.section(name)
    if section is None:
        raise InvalidRequestError(
            f"{part.where(name)} is missing", code="missing_required_parameter", param=part.where(name)
        )
    return MediaRef(kind=kind, url=section.required_text("url"), param=section.where("url"))


def _input_audio(part: JsonFields) -> MediaRef:
    section = part.section("input_audio")
    if section is None:
        where = part.where("input_audio")
        raise InvalidRequestError(f"{where} is missing", code="missing_required_parameter", param=where)
    declared = section.text("format")
    if declared is not None and declared not in _AUDIO_FORMATS:
        where = section.where("format")
        raise InvalidRequestError(f"{where} is {declared!r}, must be wav or mp3", param=where)
    return MediaRef(
        kind=MediaKind.AUDIO, base64=section.required_text("data"), format=declared, param=section.where("data")
    )


def _tool_call(call: JsonFields) -> TextPart:
    function = call.section("function")
    if function is None:
        raise InvalidRequestError(f"{call.where('function')} is missing", param=call.where("function"))
    written = {"name": function.required_text("name"), "arguments": function.text("arguments") or ""}
    return TextPart(text=orjson.dumps(written).decode())

"""OpenAI's messages: roles, text, and references to pictures and sounds, which stay unread here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

from autoglm_gateway import phone_tools
from autoglm_gateway.draft import DraftMessage, DraftPart, MediaKind, MediaRef
from autoglm_gateway.json_fields import JsonFields
from autoglm_gateway.media_store import check_uuid
from autoglm_protocol.chat import IMAGE_DETAILS, Role, TextPart, ToolCall
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
_VIDEO_PARTS = ("video", "video_url", "input_video")
_MEDIA_PARTS = {
    "image_url": MediaKind.IMAGE,
    "input_image": MediaKind.IMAGE,
    "audio_url": MediaKind.AUDIO,
    "input_audio": MediaKind.AUDIO,
}
_AUDIO_FORMATS = ("wav", "mp3")


def read_messages(fields: JsonFields, name: str = "messages") -> tuple[DraftMessage, ...]:
    """Raises InvalidRequestError naming the message and part."""
    raw = fields.items(name)
    if raw is None:
        raise InvalidRequestError(f"{name} is missing", code="missing_required_parameter", param=name)
    if not raw:
        raise InvalidRequestError(f"{name} must hold at least one message", param=name)
    conversation = Conversation()
    return tuple(conversation.message(JsonFields(item, f"{name}[{index}]")) for index, item in enumerate(raw))


class Conversation:
    """Reads one message after the other: what became of a phone action is the phone's next turn, pictures included."""

    def __init__(self) -> None:
        self._phone_calls: set[str] = set()
        """Ids of the phone actions called so far."""

    def message(self, message: JsonFields) -> DraftMessage:
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
        raw_calls = message.items("tool_calls") or []
        where = message.where("tool_calls")
        said, tool_calls = self.called(_tool_call(JsonFields(raw, f"{where}[{i}]")) for i, raw in enumerate(raw_calls))
        if role is Role.TOOL:
            told = self.result(message, "content", message.text("tool_call_id"))
        else:
            told = DraftMessage(role=role, parts=tuple(read_content(message, "content", role=role)))
        parts += [*told.parts, *said]
        if not parts and not tool_calls:
            where = message.where("content")
            raise InvalidRequestError(f"{where} is missing", code="missing_required_parameter", param=where)
        return replace(told, parts=tuple(parts), tool_calls=tool_calls)

    def called(self, calls: Iterable[ToolCall]) -> tuple[tuple[TextPart, ...], tuple[ToolCall, ...]]:
        """Calls of phone actions as the model had written them, and the other calls."""
        parts: list[TextPart] = []
        others: list[ToolCall] = []
        for call in calls:
            action = phone_tools.action_text(call.name, call.arguments)
            if action is None:
                others.append(call)
            else:
                parts.append(TextPart(text=f"<answer>{action}</answer>"))
                self._phone_calls.add(call.id)
        return tuple(parts), tuple(others)

    def is_phone_call(self, call_id: str) -> bool:
        return call_id in self._phone_calls

    def result(self, message: JsonFields, name: str, call_id: str | None) -> DraftMessage:
        """What came of a call, in the field `name`."""
        if call_id is not None and self.is_phone_call(call_id):
            return DraftMessage(role=Role.USER, parts=tuple(read_content(message, name, role=Role.USER)))
        parts = tuple(read_content(message, name, role=Role.TOOL))
        return DraftMessage(role=Role.TOOL, parts=parts, tool_call_id=call_id)


def read_content(message: JsonFields, name: str, *, role: Role) -> Sequence[DraftPart]:
    content = message.raw.get(name)
    if content is None:
        return ()
    if isinstance(content, str):
        return (TextPart(text=content),)
    if not isinstance(content, list):
        raise message.wrong_type(name, "a string or an array of parts", content)
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
    if _is_name_alone(part, kind):
        ref = MediaRef(kind=_MEDIA_PARTS[kind], param=part.where("uuid"))
    elif kind in ("image_url", "input_image"):
        ref = replace(_url_part(part, "image_url", MediaKind.IMAGE), detail=_detail(part))
    elif kind == "audio_url":
        ref = _url_part(part, "audio_url", MediaKind.AUDIO)
    elif kind == "input_audio":
        ref = _input_audio(part)
    elif kind in _VIDEO_PARTS:
        raise InvalidRequestError(
            f"{where} is a {kind}, and this server takes no video; send pictures of it",
            code="unsupported_content",
            param=part.where("type"),
        )
    else:
        raise InvalidRequestError(
            f"{part.where('type')} is {kind[:64]!r}, supported are {', '.join((*_TEXT_PARTS, *_MEDIA_PARTS))}",
            param=part.where("type"),
        )
    if role is not Role.USER:
        raise InvalidRequestError(f"{where} is a {ref.kind.value}, which only user messages may hold", param=where)
    return replace(ref, uuid=_uuid(part))


def _is_name_alone(part: JsonFields, kind: str) -> bool:
    """A part with a `uuid` and no content: {"type": "image_url", "image_url": null, "uuid": ...} as vLLM's clients."""
    name = {"input_image": "image_url"}.get(kind, kind)
    return kind in _MEDIA_PARTS and part.raw.get("uuid") is not None and not part.raw.get(name)


def _uuid(part: JsonFields) -> str | None:
    uuid = part.text("uuid")
    check_uuid(uuid, part.where("uuid"))
    return uuid


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


def _detail(part: JsonFields) -> str | None:
    """Chat completions say it inside `image_url`, responses beside it."""
    section = JsonFields(part.raw["image_url"], part.where("image_url")) if _is_object(part, "image_url") else part
    detail = section.text("detail")
    if detail not in (None, *IMAGE_DETAILS):
        where = section.where("detail")
        raise InvalidRequestError(f"{where} is {detail!r}, must be one of {', '.join(IMAGE_DETAILS)}", param=where)
    return detail


def _is_object(part: JsonFields, name: str) -> bool:
    return isinstance(part.raw.get(name), dict)


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


def _tool_call(call: JsonFields) -> ToolCall:
    function = call.section("function")
    if function is None:
        raise InvalidRequestError(f"{call.where('function')} is missing", param=call.where("function"))
    return ToolCall(
        id=call.text("id") or "", name=function.required_text("name"), arguments=function.text("arguments") or "{}"
    )

"""A chat request to Triton tensors and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, cast

from autoglm_protocol.chat import (
    IMAGE_DETAILS,
    AudioPart,
    ChatOptions,
    ChatRequest,
    ImagePart,
    Message,
    Part,
    Role,
    Task,
    TaskKind,
    TextPart,
    ToolCall,
)
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.sampling import SamplingParams
from autoglm_protocol.tensors import Array, Tensors, as_bytes, bytes_tensor, json_tensor, read_json, read_object

_ROLES = tuple(role.value for role in Role)
_DEFAULT_OPTIONS = ChatOptions()
_OPTION_FIELDS = {f.name for f in fields(ChatOptions)}


def chat_to_tensors(request: ChatRequest) -> Tensors:
    images: list[bytes] = []
    audios: list[bytes] = []
    messages: list[dict[str, Any]] = []
    for message in request.messages:
        parts: list[dict[str, Any]] = []
        for part in message.parts:
            if isinstance(part, TextPart):
                parts.append({"type": "text", "text": part.text})
            elif isinstance(part, ImagePart):
                detail = {} if part.detail is None else {"detail": part.detail}
                parts.append({"type": "image", "index": len(images), **detail})
                images.append(part.data)
            else:
                parts.append({"type": "audio", "index": len(audios), "format": part.format})
                audios.append(part.data)
        written: dict[str, Any] = {"role": message.role.value, "content": parts}
        if message.tool_calls:
            written["tool_calls"] = [asdict(call) for call in message.tool_calls]
        if message.tool_call_id is not None:
            written["tool_call_id"] = message.tool_call_id
        messages.append(written)
    tensors = {
        "messages": json_tensor(messages),
        "sampling": json_tensor(request.sampling.to_json()),
        "options": json_tensor(_options_json(request.options)),
    }
    if images:
        tensors["images"] = bytes_tensor(images)
    if audios:
        tensors["audios"] = bytes_tensor(audios)
    if request.task != Task():
        tensors["task"] = json_tensor(asdict(request.task))
    return tensors


def chat_from_tensors(tensors: Mapping[str, Array], *, request_id: str, model: str) -> ChatRequest:
    """Read what `chat_to_tensors` or a raw Triton client wrote. Raises InvalidRequestError naming the field."""
    images = [as_bytes(item) for item in tensors.get("images", ())]
    audios = [as_bytes(item) for item in tensors.get("audios", ())]
    task = _task(read_object(tensors, "task"))
    raw_messages = read_json(tensors, "messages", None)
    if not isinstance(raw_messages, list) or not (raw_messages or _needs_no_messages(task)):
        raise InvalidRequestError("messages must be a list with at least one message", param="messages")
    listed = cast("list[Any]", raw_messages)
    messages = [_message(raw, index, images, audios) for index, raw in enumerate(listed)]
    if (images or audios) and not any(not isinstance(p, TextPart) for m in messages for p in m.parts):
        messages = _media_before_last_user(messages, images, audios)
    return ChatRequest(
        request_id=request_id,
        model=model,
        messages=tuple(messages),
        sampling=SamplingParams.from_json(read_object(tensors, "sampling")),
        options=_options(read_object(tensors, "options")),
        task=task,
    )


def _message(raw: Any, index: int, images: list[bytes], audios: list[bytes]) -> Message:
    where = f"messages[{index}]"
    if not isinstance(raw, dict):
        raise InvalidRequestError(f"{where} must be an object", param=where)
    fields_of = cast("dict[str, Any]", raw)
    said = fields_of.get("role")
    if said not in _ROLES:
        roles = ", ".join(_ROLES)
        raise InvalidRequestError(f"{where}.role is {said!r}, must be one of {roles}", param=f"{where}.role")
    content = fields_of.get("content")
    if isinstance(content, str):
        return Message(role=Role(said), parts=(TextPart(text=content),))
    if not isinstance(content, list):
        raise InvalidRequestError(f"{where}.content must be a string or a list of parts", param=f"{where}.content")
    listed = cast("list[Any]", content)
    parts = tuple(_part(part, f"{where}.content[{i}]", images, audios) for i, part in enumerate(listed))
    call_id = fields_of.get("tool_call_id")
    if call_id is not None and not isinstance(call_id, str):
        raise InvalidRequestError(f"{where}.tool_call_id must be a string", param=f"{where}.tool_call_id")
    return Message(role=Role(said), parts=parts, tool_calls=_tool_calls(fields_of, where), tool_call_id=call_id)


def _tool_calls(fields_of: Mapping[str, Any], where: str) -> tuple[ToolCall, ...]:
    try:
        return tuple(ToolCall(**call) for call in fields_of.get("tool_calls", ()))
    except TypeError as error:
        where = f"{where}.tool_calls"
        raise InvalidRequestError(f"{where} must be a list of {{id, name, arguments}}", param=where) from error


def _part(raw: Any, where: str, images: list[bytes], audios: list[bytes]) -> Part:
    part = cast("dict[str, Any]", raw) if isinstance(raw, dict) else {}
    kind = part.get("type")
    if kind == "text" and isinstance(part.get("text"), str):
        return TextPart(text=part["text"])
    if kind in ("image", "audio"):
        items = images if kind == "image" else audios
        at = part.get("index")
        if not isinstance(at, int) or isinstance(at, bool) or not 0 <= at < len(items):
            raise InvalidRequestError(
                f"{where}.index is {at!r}, but the tensor {kind}s holds {len(items)} items", param=f"{where}.index"
            )
        if kind == "audio":
            return AudioPart(data=items[at], format=part.get("format"))
        detail = part.get("detail")
        if detail not in (None, *IMAGE_DETAILS):
            listed = ", ".join(IMAGE_DETAILS)
            raise InvalidRequestError(f"{where}.detail is {detail!r}, must be one of {listed}", param=f"{where}.detail")
        return ImagePart(data=items[at], detail=detail)
    raise InvalidRequestError(f"{where} must be a text, image or audio part", param=where)


def _media_before_last_user(messages: list[Message], images: list[bytes], audios: list[bytes]) -> list[Message]:
    media: tuple[Part, ...] = (
        *(ImagePart(data=data) for data in images),
        *(AudioPart(data=data) for data in audios),
    )
    for index in reversed(range(len(messages))):
        if messages[index].role is Role.USER:
            merged = Message(role=Role.USER, parts=(*media, *messages[index].parts))
            return [*messages[:index], merged, *messages[index + 1 :]]
    raise InvalidRequestError("images or audios were sent without a user message", param="messages")


def _options_json(options: ChatOptions) -> dict[str, Any]:
    return {name: value for name, value in asdict(options).items() if value != getattr(_DEFAULT_OPTIONS, name)}


def _options(raw: dict[str, Any]) -> ChatOptions:
    for name in raw:
        if name not in _OPTION_FIELDS:
            raise InvalidRequestError(f"{name} is not an option", code="unknown_parameter", param=name)
    return ChatOptions(**raw)


def _needs_no_messages(task: Task) -> bool:
    return task.kind is TaskKind.DETOKENIZE or (task.kind is TaskKind.TOKENIZE and task.text is not None)


def _task(raw: dict[str, Any]) -> Task:
    kinds = [kind.value for kind in TaskKind]
    kind, text, ids = raw.get("kind", TaskKind.GENERATE.value), raw.get("text"), raw.get("token_ids", [])
    if kind not in kinds:
        raise InvalidRequestError(f"task.kind is {kind!r}, must be one of {', '.join(kinds)}", param="task.kind")
    if text is not None and not isinstance(text, str):
        raise InvalidRequestError("task.text must be a string", param="task.text")
    if not isinstance(ids, list) or not all(type(token) is int for token in cast("list[Any]", ids)):
        raise InvalidRequestError("task.token_ids must be a list of whole numbers", param="task.token_ids")
    flags = {name: raw.get(name, False) for name in ("add_special_tokens", "return_token_strs")}
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise InvalidRequestError(f"task.{name} must be true or false", param=f"task.{name}")
    return Task(kind=TaskKind(kind), text=text, token_ids=tuple(cast("list[int]", ids)), **flags)

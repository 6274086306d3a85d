"""Requests and events to Triton tensors and back: the only place that spells the JSON inside them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, cast

import numpy as np

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
from autoglm_protocol.errors import InternalError, InvalidRequestError, from_wire_text, wire_text
from autoglm_protocol.events import (
    Cancelled,
    ChoiceFinished,
    Failed,
    Finished,
    FinishReason,
    Started,
    StreamEvent,
    TokenDelta,
    TokenLogprob,
    Usage,
)
from autoglm_protocol.plan import ExecutionPlan
from autoglm_protocol.profile import ProfileBounds
from autoglm_protocol.sampling import SamplingParams
from autoglm_protocol.steps import Steps
from autoglm_protocol.tensors import Array, Tensors, as_bytes, bytes_tensor, json_tensor, read_json


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeRequest:
    """What the decoder needs of a request: ids, where media stand, their embeddings, and how to go on."""

    tag: str
    prompt_ids: Array
    """int32 [T], one placeholder per media token."""
    image_grids: tuple[tuple[int, int], ...] = ()
    """Rows and columns of each picture in merged tokens."""
    embeddings_MD: Array | None = None
    """float32 [media tokens, hidden], None for text only."""
    media_hashes: tuple[bytes, ...] = ()
    sampling: SamplingParams = field(default_factory=SamplingParams)
    plan: ExecutionPlan | None = None
    priority: int = 0


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
    task = _task(_object(tensors, "task"))
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
        sampling=SamplingParams.from_json(_object(tensors, "sampling")),
        options=_options(_object(tensors, "options")),
        task=task,
    )


def decode_to_tensors(request: DecodeRequest) -> Tensors:
    tensors: Tensors = {
        "tag": bytes_tensor([request.tag.encode()]),
        "prompt_ids": np.ascontiguousarray(request.prompt_ids, dtype=np.int32),
        "sampling": json_tensor(request.sampling.to_json()),
        "priority": np.array([request.priority], dtype=np.int32),
    }
    if request.image_grids:
        tensors["image_grids"] = np.array(request.image_grids, dtype=np.int32)
    if request.embeddings_MD is not None:
        tensors["embeddings"] = np.ascontiguousarray(request.embeddings_MD, dtype=np.float32)
    if request.media_hashes:
        tensors["media_hashes"] = bytes_tensor(request.media_hashes)
    if request.plan is not None:
        tensors["plan"] = json_tensor(request.plan.to_json())
    return tensors


def cancel_to_tensors(tag: str) -> Tensors:
    return {"tag": bytes_tensor([tag.encode()]), "cancel": bytes_tensor([b"1"])}


def profile_to_tensors(bounds: ProfileBounds) -> Tensors:
    return {"tag": bytes_tensor([b"profile"]), "profile": json_tensor(bounds.to_json())}


def profile_from_tensors(tensors: Mapping[str, Array]) -> ProfileBounds:
    """Raises InvalidRequestError naming the field."""
    return ProfileBounds.from_json(_object(tensors, "profile"))


def trace_to_tensors(trace: bytes) -> Tensors:
    """A profile's answer: a gzipped Chrome trace."""
    return _message_tensors({"type": "profile", "trace": base64.b64encode(trace).decode()})


def trace_from_tensors(tensors: Mapping[str, Array]) -> bytes:
    return base64.b64decode(read_json(tensors, "event", None)["trace"])


def steps_to_tensors(steps: Steps) -> Tensors:
    """The message before the terminal one, for a request with the parameter `return_steps`."""
    return _message_tensors({"type": "steps", "steps": steps.to_json()})


def decode_from_tensors(tensors: Mapping[str, Array]) -> DecodeRequest:
    """Raises InvalidRequestError naming the tensor."""
    if "prompt_ids" not in tensors:
        raise InvalidRequestError("input tensor prompt_ids is missing", param="prompt_ids")
    raw_plan = read_json(tensors, "plan", None)
    try:
        plan = None if raw_plan is None else ExecutionPlan.from_json(raw_plan)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidRequestError(f"input tensor plan is no execution plan: {error}", param="plan") from error
    grids = tensors.get("image_grids")
    priority = tensors.get("priority")
    return DecodeRequest(
        tag=as_bytes(tensors["tag"][0]).decode(),
        prompt_ids=tensors["prompt_ids"],
        image_grids=() if grids is None else tuple((int(r), int(c)) for r, c in grids),
        embeddings_MD=tensors.get("embeddings"),
        media_hashes=tuple(as_bytes(item) for item in tensors.get("media_hashes", ())),
        sampling=SamplingParams.from_json(_object(tensors, "sampling")),
        plan=plan,
        priority=0 if priority is None else int(priority[0]),
    )


def event_to_tensors(event: StreamEvent) -> Tensors:
    """Failed travels so only after other events: before, it is a Triton error (`errors.wire_text`)."""
    text: str = ""
    token_ids: tuple[int, ...] = ()
    body: dict[str, Any]
    if isinstance(event, Started):
        body = {"type": "started", "usage": event.usage.to_json(), "dynamic_graph": dict(event.dynamic_graph)}
    elif isinstance(event, TokenDelta):
        text, token_ids = event.text, event.token_ids
        body = {"type": "delta", "index": event.index}
        if event.logprobs is not None:
            body["logprobs"] = [_logprob_json(entry) for entry in event.logprobs]
        if event.layers is not None:
            body["layers"] = event.layers
        if event.chars is not None:
            body["chars"] = event.chars
    elif isinstance(event, ChoiceFinished):
        body = {"type": "choice_finished", "index": event.index, "finish_reason": event.finish_reason.value}
    elif isinstance(event, Finished):
        body = {
            "type": "finished",
            "finish_reason": event.finish_reason.value,
            "usage": event.usage.to_json(),
            "dynamic_graph": dict(event.dynamic_graph),
        }
    elif isinstance(event, Cancelled):
        body = {"type": "cancelled", "usage": event.usage.to_json(), "dynamic_graph": dict(event.dynamic_graph)}
    else:
        body = {"type": "failed", "error": wire_text(event.error)}
    return _message_tensors(body, text, token_ids)


def _message_tensors(body: dict[str, Any], text: str = "", token_ids: tuple[int, ...] = ()) -> Tensors:
    return {
        "text": bytes_tensor([text.encode()]),
        "token_ids": np.array(token_ids, dtype=np.int32),
        "event": json_tensor(body),
    }


def message_from_tensors(tensors: Mapping[str, Array]) -> StreamEvent | Steps:
    """What `event_to_tensors` or `steps_to_tensors` wrote."""
    body = read_json(tensors, "event", None)
    return Steps.from_json(body["steps"]) if body["type"] == "steps" else _event(tensors, body)


def event_from_tensors(tensors: Mapping[str, Array]) -> StreamEvent:
    return _event(tensors, read_json(tensors, "event", None))


def _event(tensors: Mapping[str, Array], body: dict[str, Any]) -> StreamEvent:
    kind = body["type"]
    if kind == "delta":
        raw_logprobs = body.get("logprobs")
        return TokenDelta(
            text=as_bytes(tensors["text"][0]).decode(),
            token_ids=tuple(int(t) for t in tensors["token_ids"]),
            index=body["index"],
            logprobs=None if raw_logprobs is None else tuple(_logprob(entry) for entry in raw_logprobs),
            layers=tuple(body["layers"]) if "layers" in body else None,
            chars=tuple(body["chars"]) if "chars" in body else None,
        )
    if kind == "started":
        return Started(usage=Usage(**body["usage"]), dynamic_graph=body["dynamic_graph"])
    if kind == "choice_finished":
        return ChoiceFinished(index=body["index"], finish_reason=FinishReason(body["finish_reason"]))
    if kind == "finished":
        return Finished(
            finish_reason=FinishReason(body["finish_reason"]),
            usage=Usage(**body["usage"]),
            dynamic_graph=body["dynamic_graph"],
        )
    if kind == "cancelled":
        return Cancelled(usage=Usage(**body["usage"]), dynamic_graph=body["dynamic_graph"])
    if kind == "failed":
        return Failed(error=from_wire_text(body["error"]) or InternalError("a model of the server failed"))
    raise ValueError(f"unknown event type {kind!r}")


def _object(tensors: Mapping[str, Array], name: str) -> dict[str, Any]:
    value = read_json(tensors, name, {})
    if not isinstance(value, dict):
        raise InvalidRequestError(f"input tensor {name} must be a JSON object", param=name)
    return cast("dict[str, Any]", value)


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
    return Task(kind=TaskKind(kind), text=text, token_ids=tuple(cast("list[int]", ids)))


_ROLES = tuple(role.value for role in Role)
_DEFAULT_OPTIONS = ChatOptions()
_OPTION_FIELDS = {f.name for f in fields(ChatOptions)}


def _logprob_json(entry: TokenLogprob) -> list[Any]:
    # Tokens are bytes, not text: base64 keeps half a character whole.
    top = [[i, text, base64.b64encode(raw).decode(), lp] for i, text, raw, lp in entry.top]
    return [entry.token_id, entry.token, base64.b64encode(entry.raw).decode(), entry.logprob, top]


def _logprob(raw: list[Any]) -> TokenLogprob:
    token_id, token, data, logprob, top = raw
    return TokenLogprob(
        token_id=token_id,
        token=token,
        raw=base64.b64decode(data),
        logprob=logprob,
        top=tuple((i, text, base64.b64decode(b), lp) for i, text, b, lp in top),
    )

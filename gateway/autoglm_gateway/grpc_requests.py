"""The requests of autoglm.proto to ChatDrafts."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format

from autoglm_gateway.answer_format import answers_with_data
from autoglm_gateway.draft import ChatDraft, DraftMessage, DraftPart, MediaKind, MediaRef
from autoglm_gateway.json_fields import JsonFields
from autoglm_gateway.media_store import check_uuid
from autoglm_gateway.openai_content import Conversation
from autoglm_gateway.openai_schema import check_features, offering
from autoglm_gateway.tools import PHONE_ACTIONS, Tools, read_tools
from autoglm_protocol.chat import ChatOptions, Role, TextPart, ToolCall
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.grpc import autoglm_pb2 as pb
from autoglm_protocol.sampling import SamplingParams

_ROLES = {
    pb.ROLE_SYSTEM: Role.SYSTEM,
    pb.ROLE_USER: Role.USER,
    pb.ROLE_ASSISTANT: Role.ASSISTANT,
    pb.ROLE_TOOL: Role.TOOL,
}
_CHOICES = {pb.ToolChoice.AUTO: "auto", pb.ToolChoice.NONE: "none", pb.ToolChoice.REQUIRED: "required"}


def draft_from(request: pb.ChatRequest, *, features: frozenset[str], stream: bool) -> ChatDraft:
    """Raises InvalidRequestError naming the field by its dotted path."""
    if not request.messages:
        raise InvalidRequestError("messages must hold at least one message", param="messages")
    sampling = _sampling(request.sampling)
    check_features(sampling, features)
    conversation = Conversation()
    draft = ChatDraft(
        model=request.model,
        messages=tuple(_message(message, f"messages[{i}]", conversation) for i, message in enumerate(request.messages)),
        sampling=sampling,
        options=_options(request.options),
        return_reasoning=(
            request.options.return_reasoning
            if request.options.HasField("return_reasoning")
            else answers_with_data(sampling.grammar)
        ),
        stream=stream,
    )
    return offering(draft, _tools(request), features=features)


def _tools(request: pb.ChatRequest) -> Tools | None:
    """In chat's spelling, so that there is one reader of tools."""
    raw: dict[str, Any] = {}
    if request.tools:
        raw["tools"] = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(request.tools)]
    if request.HasField("tool_choice"):
        raw["tool_choice"] = _tool_choice(request.tool_choice)
    if request.HasField("parallel_tool_calls"):
        raw["parallel_tool_calls"] = request.parallel_tool_calls
    return read_tools(JsonFields(raw))


def _tool(tool: pb.Tool, where: str) -> dict[str, Any]:
    kind = tool.WhichOneof("kind")
    if kind is None:
        raise InvalidRequestError(f"{where} is empty", param=where)
    if kind == "phone_actions":
        return {"type": PHONE_ACTIONS}
    function: dict[str, Any] = {"name": tool.function.name}
    if tool.function.HasField("description"):
        function["description"] = tool.function.description
    if tool.function.HasField("parameters"):
        function["parameters"] = json_format.MessageToDict(tool.function.parameters)
    return {"type": "function", "function": function}


def _tool_choice(choice: pb.ToolChoice) -> Any:
    mode = _CHOICES.get(choice.mode)
    if mode is None:
        raise InvalidRequestError("tool_choice.mode is unknown", param="tool_choice.mode")
    if mode == "none" or not choice.names:
        return mode
    named = [{"type": "function", "function": {"name": name}} for name in choice.names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": named}}


def _message(message: pb.Message, where: str, conversation: Conversation) -> DraftMessage:
    role = _ROLES.get(message.role)
    if role is None:
        raise InvalidRequestError(f"{where}.role is missing or unknown", param=f"{where}.role")
    call_id = message.tool_call_id if role is Role.TOOL and message.HasField("tool_call_id") else None
    if call_id is not None and conversation.is_phone_call(call_id):
        role, call_id = Role.USER, None
    parts = tuple(_part(part, role, f"{where}.parts[{i}]") for i, part in enumerate(message.parts))
    calls = (ToolCall(id=call.id, name=call.name, arguments=call.arguments or "{}") for call in message.tool_calls)
    said, tool_calls = conversation.called(calls)
    if not parts and not said and not tool_calls:
        raise InvalidRequestError(f"{where}.parts is empty", param=f"{where}.parts")
    return DraftMessage(role=role, parts=(*parts, *said), tool_calls=tool_calls, tool_call_id=call_id)


def _part(part: pb.Part, role: Role, where: str) -> DraftPart:
    kind = part.WhichOneof("kind")
    if kind is None:
        raise InvalidRequestError(f"{where} is empty", param=where)
    if kind == "text":
        return TextPart(text=part.text)
    if role is not Role.USER:
        raise InvalidRequestError(f"{where} is a medium, which only user messages may hold", param=where)
    uuid = part.uuid if part.HasField("uuid") else None
    check_uuid(uuid, f"{where}.uuid")
    media_kind = MediaKind.IMAGE if kind.startswith("image") else MediaKind.AUDIO
    content = getattr(part, kind)
    if uuid is not None and not content:
        return MediaRef(kind=media_kind, uuid=uuid, param=f"{where}.uuid")
    if kind.endswith("_url"):
        return MediaRef(kind=media_kind, url=content, uuid=uuid, param=f"{where}.{kind}")
    return MediaRef(kind=media_kind, data=content, uuid=uuid, param=f"{where}.{kind}")


def _sampling(sampling: pb.Sampling) -> SamplingParams:
    given: dict[str, Any] = {}
    for descriptor, value in sampling.ListFields():
        if descriptor.name == "logit_bias":
            given[descriptor.name] = dict(value)
        elif descriptor.is_repeated:
            given[descriptor.name] = list(value)
        elif descriptor.name == "grammar":
            given[descriptor.name] = {"kind": value.kind, "value": value.value}
        else:
            given[descriptor.name] = value
    if given.get("top_k") == -1:
        given["top_k"] = 0
    return SamplingParams.from_json(given)


def _options(options: pb.Options) -> ChatOptions:
    given: dict[str, Any] = {}
    for descriptor, value in options.ListFields():
        if descriptor.name == "chat_template_kwargs":
            given[descriptor.name] = json_format.MessageToDict(value)
        elif descriptor.name != "return_reasoning":
            given[descriptor.name] = value
    for name in ("max_reasoning_tokens", "max_reasoning_steps"):
        if given.get(name, 0) < 0:
            raise InvalidRequestError(f"{name} is {given[name]}, must be at least 0", param=name)
    return ChatOptions(**given)

"""A validated request whose media are not fetched or decoded yet: what stands between parsing and admission."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from autoglm_gateway.tools import Tools
from autoglm_protocol.chat import ChatOptions, Role, Task, TextPart, ToolCall
from autoglm_protocol.sampling import SamplingParams


class MediaKind(str, Enum):
    IMAGE = "image"
    AUDIO = "audio"


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaRef:
    """Where a picture or sound is to be had: one of `url` (data: or http), `base64` and `data`, or a `uuid` alone."""

    kind: MediaKind
    param: str
    """Dotted path of the field, for complaints."""
    url: str | None = None
    base64: str | None = None
    data: bytes | None = None
    format: str | None = None
    """What the caller declared a sound to be ("wav", "mp3")."""
    uuid: str | None = None
    """The caller's name of the medium, under which a later turn may mean it."""
    detail: str | None = None
    """How closely to look at a picture (`ImagePart.detail`)."""


DraftPart = TextPart | MediaRef


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftMessage:
    role: Role
    parts: tuple[DraftPart, ...]
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatDraft:
    model: str
    messages: tuple[DraftMessage, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    options: ChatOptions = field(default_factory=ChatOptions)
    task: Task = field(default_factory=Task)
    tools: Tools | None = None
    """Calls to look for in the answer."""
    return_reasoning: bool = False
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    echo: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Fields of the request that a response repeats."""
    ignored_fields: tuple[str, ...] = ()
    """Top-level fields that nobody knows; accepted, counted and logged."""

    @property
    def media(self) -> tuple[MediaRef, ...]:
        return tuple(part for message in self.messages for part in message.parts if isinstance(part, MediaRef))

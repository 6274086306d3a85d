"""A chat request as every part of the system sees it: messages with media as bytes, sampling, and options of ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from autoglm_protocol.sampling import SamplingParams


class Role(str, Enum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPart:
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePart:
    """An encoded picture file (PNG, JPEG or WebP), not yet decoded."""

    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioPart:
    """An encoded sound file. `format` is what the caller declared ("wav", "mp3"), None when it said nothing."""

    data: bytes
    format: str | None = None


Part = TextPart | ImagePart | AudioPart


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOptions:
    """What is ours beside OpenAI's fields. `depth` and `exit` stay raw here: only a checkpoint knows its exits."""

    depth: int | str | None = None
    exit: str | None = None
    enable_thinking: bool = True
    max_reasoning_tokens: int | None = None
    max_reasoning_steps: int | None = None
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict[str, Any])
    continue_final_message: bool = False
    add_generation_prompt: bool = True
    priority: int = 0
    """Lower runs sooner (vLLM's meaning)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    request_id: str
    model: str
    messages: tuple[Message, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    options: ChatOptions = field(default_factory=ChatOptions)

    @property
    def images(self) -> tuple[ImagePart, ...]:
        return tuple(p for m in self.messages for p in m.parts if isinstance(p, ImagePart))

    @property
    def audios(self) -> tuple[AudioPart, ...]:
        return tuple(p for m in self.messages for p in m.parts if isinstance(p, AudioPart))

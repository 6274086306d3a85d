"""A chat request as every part of the system sees it: messages with media as bytes, sampling, and options of ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from autoglm_protocol.sampling import SamplingParams

IMAGE_DETAILS = ("low", "high", "auto")


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
    detail: str | None = None
    """OpenAI's word for how closely to look, one of IMAGE_DETAILS; None is "auto"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioPart:
    """An encoded sound file. `format` is what the caller declared ("wav", "mp3"), None when it said nothing."""

    data: bytes
    format: str | None = None


Part = TextPart | ImagePart | AudioPart


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call that an assistant made; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    role: Role
    parts: tuple[Part, ...]
    tool_calls: tuple[ToolCall, ...] = ()
    """Of an assistant; phone actions are text instead."""
    tool_call_id: str | None = None
    """Of a tool: the call that it answers."""

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOptions:
    """What is ours beside OpenAI's fields. `depth` and `exit` stay raw here: only a checkpoint knows its exits."""

    depth: int | str | None = None
    exit: str | None = None
    attention_window: int | None = None
    """Tokens that each token reads of those before it; only a checkpoint knows how few it bears."""
    enable_thinking: bool = True
    max_reasoning_tokens: int | None = None
    max_reasoning_steps: int | None = None
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict[str, Any])
    continue_final_message: bool = False
    add_generation_prompt: bool = True
    priority: int = 0
    """Lower runs sooner (vLLM's meaning)."""
    max_pixels: int | None = None
    """Most pixels of each picture after resizing; the deployment's own limit stays in force."""
    min_pixels: int | None = None
    """Fewer are scaled up to this."""
    return_token_layers: bool = False
    """Say with each token how many decoder layers it needed."""


class TaskKind(str, Enum):
    GENERATE = "generate"
    TOKENIZE = "tokenize"
    """The prompt's token ids, or those of `Task.text` alone."""
    DETOKENIZE = "detokenize"
    """The text of `Task.token_ids`."""
    TRANSCRIBE = "transcribe"
    """What the speech encoder heard in the request's one sound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is wanted of a request. All but GENERATE are answered in one delta, without the decoder."""

    kind: TaskKind = TaskKind.GENERATE
    text: str | None = None
    token_ids: tuple[int, ...] = ()
    add_special_tokens: bool = False
    """TOKENIZE: with what the tokenizer puts around a text by itself."""
    return_token_strs: bool = False
    """TOKENIZE: with the tokens as the vocabulary spells them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    request_id: str
    model: str
    messages: tuple[Message, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    options: ChatOptions = field(default_factory=ChatOptions)
    task: Task = field(default_factory=Task)

    @property
    def images(self) -> tuple[ImagePart, ...]:
        return tuple(p for m in self.messages for p in m.parts if isinstance(p, ImagePart))

    @property
    def audios(self) -> tuple[AudioPart, ...]:
        return tuple(p for m in self.messages for p in m.parts if isinstance(p, AudioPart))

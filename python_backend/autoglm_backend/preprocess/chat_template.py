"""Messages to prompt ids: the checkpoint's own chat template, with media placeholders expanded and nothing injected.

Text that callers send never becomes a special token. Before rendering, an invisible mark is set between the characters
of every special token that a caller typed; the tokenizer sees no token there and drops the mark again. Templates may
therefore split, strip or search contents as they like.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.meta
import numpy as np
from jinja2.sandbox import ImmutableSandboxedEnvironment
from numpy.typing import NDArray

from autoglm_backend.models.config import CheckpointError, ModelConfig
from autoglm_backend.preprocess.tokenizer import Tokenizer, load_tokenizer
from autoglm_protocol.chat import ChatOptions, ImagePart, Message, Role, TextPart, ToolCall
from autoglm_protocol.errors import InvalidRequestError

AUDIO_TOKEN = "<|audio|>"
NO_THOUGHT = "<think></think>"
# Unicode noncharacters: no text has a use for them, and the first ones that a request does not hold serve as its marks.
_MARKS = tuple(chr(code) for code in range(0xFDD0, 0xFDF0))


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPrompt:
    ids: NDArray[np.int32]
    """int32 [T], one placeholder per media token."""
    image_spans: tuple[tuple[int, int], ...]
    """Start and length of each picture's placeholders."""
    audio_spans: tuple[tuple[int, int], ...]
    starts_in_thought: bool
    """The prompt ends inside an open <think>."""

    @property
    def num_image_tokens(self) -> int:
        return sum(length for _, length in self.image_spans)

    @property
    def num_audio_tokens(self) -> int:
        return sum(length for _, length in self.audio_spans)


class ChatTemplate:
    """A checkpoint's template and tokenizer. Thread-safe."""

    def __init__(self, source: str, tokenizer: Tokenizer, config: ModelConfig) -> None:
        self.source = source
        self.tokenizer = tokenizer
        self._config = config
        self._audio_token_id = tokenizer.id_of(AUDIO_TOKEN)
        self._think_ids = (tokenizer.id_of("<think>"), tokenizer.id_of("</think>"))
        environment = _environment()
        self._template = environment.from_string(source)
        variables = jinja2.meta.find_undeclared_variables(environment.parse(source))
        self._has_thinking_switch = "enable_thinking" in variables
        self._takes_tools = "tools" in variables
        specials = tokenizer.special_contents
        self._special = (
            re.compile("|".join(map(re.escape, sorted(specials, key=len, reverse=True)))) if specials else None
        )
        self._openings = frozenset(text[:end] for text in specials for end in range(1, len(text)))
        self._endings = frozenset(text[start:] for text in specials for start in range(1, len(text)))
        self._longest = max(map(len, specials), default=0)

    @property
    def think_ids(self) -> tuple[int, int] | None:
        """Ids of <think> and </think>, None for a tokenizer without them."""
        opening, closing = self._think_ids
        return None if opening is None or closing is None else (opening, closing)

    def encode(
        self,
        messages: Sequence[Message],
        options: ChatOptions,
        *,
        image_tokens: Sequence[int],
        audio_tokens: Sequence[int],
        context_tokens: int,
    ) -> EncodedPrompt:
        """The prompt of a conversation. image_tokens, audio_tokens: placeholders of each item, in order.

        Raises InvalidRequestError: context_length_exceeded, or naming the message or option that cannot be rendered.
        """
        mark, end_mark = _unused_marks(messages, options)
        text = self._render(messages, options, mark, end_mark)
        if options.continue_final_message:
            text, found, _ = text.rpartition(end_mark)
            if not found:
                raise InvalidRequestError(
                    "the chat template leaves the final message out, so it cannot be continued",
                    param="continue_final_message",
                )
        if self._needs_prefilled_thought(options):
            text += NO_THOUGHT
        return self._place_media(self.tokenizer.encode(text, ignored=mark), image_tokens, audio_tokens, context_tokens)

    def _render(self, messages: Sequence[Message], options: ChatOptions, mark: str, end_mark: str) -> str:
        if "tools" in options.chat_template_kwargs and not self._takes_tools:
            raise InvalidRequestError(
                "this checkpoint's chat template has no place for functions; it takes the phone's actions only",
                code="unsupported_parameter",
                param="tools",
            )
        rendered = [self._message(message, mark) for message in messages]
        if options.continue_final_message:
            _append_text(rendered[-1], end_mark)
        variables: dict[str, Any] = {
            **_map_strings(options.chat_template_kwargs, lambda text: self._hide_specials(text, mark)),
            "messages": rendered,
            "add_generation_prompt": options.add_generation_prompt and not options.continue_final_message,
        }
        if self._has_thinking_switch:
            variables.setdefault("enable_thinking", options.enable_thinking)
        try:
            return self._template.render(**variables)
        except _TemplateRefusal as refusal:
            raise InvalidRequestError(
                f"the chat template refuses this conversation: {refusal}", param="messages"
            ) from refusal
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            # the template comes with the checkpoint and worked at load: it is this request that it cannot take
            raise InvalidRequestError(
                f"the chat template cannot render this conversation: {error}", param="messages"
            ) from error

    def _message(self, message: Message, mark: str) -> dict[str, Any]:
        parts: list[dict[str, Any]] = []
        for part in message.parts:
            if isinstance(part, TextPart):
                parts.append({"type": "text", "text": self._hide_specials(part.text, mark)})
            else:
                parts.append({"type": "image" if isinstance(part, ImagePart) else "audio"})
        has_media = any(part["type"] != "text" for part in parts)
        # Only user turns are iterated by GLM templates; a list elsewhere would be printed as a Python value.
        if message.role is Role.USER and has_media:
            return {"role": message.role.value, "content": parts}
        if has_media:
            raise InvalidRequestError(
                f"only user messages may hold images or audio, not {message.role.value}", param="messages"
            )
        text = "".join(part["text"] for part in parts)
        role = message.role
        calls = [self._call(call, mark) for call in message.tool_calls]
        if not self._takes_tools:
            text += "".join(json.dumps(call["function"], ensure_ascii=False) for call in calls)
            # A template that knows no tools would leave their results out without a word.
            return {"role": Role.USER.value if role is Role.TOOL else role.value, "content": text}
        return {
            "role": message.role.value,
            "content": text,
            **({"tool_calls": calls} if calls else {}),
            **({} if message.tool_call_id is None else {"tool_call_id": message.tool_call_id}),
        }

    def _call(self, call: ToolCall, mark: str) -> dict[str, Any]:
        try:
            arguments: Any = json.loads(call.arguments)
        except ValueError:
            arguments = call.arguments
        function = {"name": call.name, "arguments": arguments}
        return {
            "id": call.id,
            "type": "function",
            "function": _map_strings(function, lambda text: self._hide_specials(text, mark)),
        }

    def _hide_specials(self, text: str, mark: str) -> str:
        """The text with a mark wherever it could be, begin or end a special token."""
        if self._special is None:
            return text
        # after every character: another special token may begin inside this one
        text = self._special.sub(lambda match: mark.join(match.group()) + mark, text)
        if any(text.startswith(ending) for ending in self._affixes(text[: self._longest], self._endings, head=True)):
            text = mark + text
        if any(text.endswith(opening) for opening in self._affixes(text[-self._longest :], self._openings, head=False)):
            text += mark
        return text

    def _affixes(self, edge: str, known: frozenset[str], *, head: bool) -> list[str]:
        pieces = (edge[:size] if head else edge[-size:] for size in range(1, len(edge) + 1))
        return [piece for piece in pieces if piece in known]

    def _needs_prefilled_thought(self, options: ChatOptions) -> bool:
        opens_answer = options.add_generation_prompt and not options.continue_final_message
        return (
            not options.enable_thinking
            and not self._has_thinking_switch
            and opens_answer
            and self.think_ids is not None
        )

    def _place_media(
        self, ids: list[int], image_tokens: Sequence[int], audio_tokens: Sequence[int], context_tokens: int
    ) -> EncodedPrompt:
        config = self._config
        if config.video_token_id in ids:
            raise InvalidRequestError("this server takes no video", code="unsupported_content", param="messages")
        counts = {config.image_token_id: image_tokens}
        if self._audio_token_id is not None:
            counts[self._audio_token_id] = audio_tokens
        for token, name, items in (
            (config.image_token_id, "image", image_tokens),
            (self._audio_token_id, "audio", audio_tokens),
        ):
            found = 0 if token is None else ids.count(token)
            if found != len(items):
                raise InvalidRequestError(
                    f"the chat template placed {found} of {len(items)} {name} items; "
                    "a template that leaves a message out cannot take media in it",
                    param="messages",
                )
        total = len(ids) + sum(size - 1 for items in counts.values() for size in items)
        if total >= context_tokens:
            raise InvalidRequestError(
                f"the prompt has {total} tokens, the context holds {context_tokens} and needs room for an answer",
                code="context_length_exceeded",
                param="messages",
            )
        expanded: list[int] = []
        spans: dict[int, list[tuple[int, int]]] = {token: [] for token in counts}
        for token in ids:
            size = 1
            if token in counts:
                size = counts[token][len(spans[token])]
                spans[token].append((len(expanded), size))
            expanded += [token] * size
        return EncodedPrompt(
            ids=np.array(expanded, dtype=np.int32),
            image_spans=tuple(spans[config.image_token_id]),
            audio_spans=tuple(spans[self._audio_token_id]) if self._audio_token_id is not None else (),
            starts_in_thought=self._ends_in_thought(ids),
        )

    def _ends_in_thought(self, ids: list[int]) -> bool:
        opening, closing = self._think_ids
        last = next((token for token in reversed(ids) if token in (opening, closing)), None)
        if last is None or last != opening:
            return False
        # an unclosed <think> of an earlier turn is over: a role tag follows it
        after = ids[len(ids) - ids[::-1].index(last) :]
        specials = {self.tokenizer.added[content].id for content in self.tokenizer.special_contents}
        return not specials.intersection(after)


def load_chat_template(checkpoint_dir: Path, config: ModelConfig) -> ChatTemplate:
    """Read tokenizer and template, and render a short conversation. Raises CheckpointError."""
    source, path = _template_source(checkpoint_dir)
    try:
        template = ChatTemplate(source, load_tokenizer(checkpoint_dir), config)
        hello = Message(role=Role.USER, parts=(TextPart(text="Hi"),))
        template.encode([hello], ChatOptions(), image_tokens=(), audio_tokens=(), context_tokens=1 << 20)
    except (jinja2.TemplateError, InvalidRequestError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    return template


def _template_source(checkpoint_dir: Path) -> tuple[str, Path]:
    path = checkpoint_dir / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8"), path
    path = checkpoint_dir / "tokenizer_config.json"
    template = json.loads(path.read_text(encoding="utf-8")).get("chat_template") if path.exists() else None
    if isinstance(template, list):  # several, by name
        template = next((entry["template"] for entry in template if entry["name"] == "default"), None)
    if not isinstance(template, str):
        raise CheckpointError(f"{checkpoint_dir}: there is neither chat_template.jinja nor a template in {path.name}")
    return template, path


class _TemplateRefusal(Exception):
    """The template called raise_exception."""


def _refuse(message: str) -> NoReturn:
    raise _TemplateRefusal(message)


def _environment() -> ImmutableSandboxedEnvironment:
    """As transformers sets it up (`transformers/utils/chat_template_utils.py`): templates are written for that."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _unused_marks(messages: Sequence[Message], options: ChatOptions) -> tuple[str, str]:
    """Two characters that occur nowhere in the request. Also refuses text that is no Unicode."""
    texts = [part.text for message in messages for part in message.parts if isinstance(part, TextPart)]
    _map_strings(options.chat_template_kwargs, lambda text: texts.append(text) or text)
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequestError(
                f"a message holds half of a surrogate pair: {error.reason}", param="messages"
            ) from error
    free = [mark for mark in _MARKS if not any(mark in text for text in texts)]
    if len(free) < 2:
        raise InvalidRequestError("the messages use up the Unicode noncharacters U+FDD0 to U+FDEF", param="messages")
    return free[0], free[1]


def _append_text(message: dict[str, Any], text: str) -> None:
    content = message["content"]
    if isinstance(content, str):
        message["content"] = content + text
    elif content[-1]["type"] == "text":
        content[-1]["text"] += text
    else:
        content.append({"type": "text", "text": text})


def _map_strings(value: Any, change: Any, *, is_outermost: bool = True) -> Any:
    """A JSON value with every string replaced; the names of the outermost object stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping) and not is_outermost:
        return {change(key): _map_strings(item, change, is_outermost=False) for key, item in value.items()}
    if isinstance(value, Mapping):
        return {key: _map_strings(item, change, is_outermost=False) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_map_strings(item, change, is_outermost=False) for item in value]
    return value

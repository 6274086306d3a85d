"""Several turns with a person: what was said stays, and one screenshot at a time, as the model was taught."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from autoglm_client.client import ChatMessage
from autoglm_client.events import ClientEvent
from autoglm_client.media import AudioSource, ImageSource, audio_part, image_parts, user_content
from autoglm_client.reply import ActionReply, ReplyBuilder
from autoglm_client.sync import AutoGLM


class Conversation:
    """`ask` streams one turn. A turn that fails, or is left early, never was."""

    def __init__(self, client: AutoGLM, **options: Any) -> None:
        self._client = client
        self._options = options
        self._messages: list[ChatMessage] = []

    def ask(
        self,
        instruction: str,
        *,
        images: Sequence[ImageSource] = (),
        audio: AudioSource | None = None,
        show: Callable[[ClientEvent], None],
    ) -> ActionReply:
        """Calls `show` with every event as it comes. New images take the place of older ones."""
        parts = image_parts(images)
        sound = None if audio is None else audio_part(audio)
        history = [_without_images(message) for message in self._messages] if parts else self._messages
        self._client.model_name()  # asked before the clock starts
        builder = ReplyBuilder()
        stream = self._client.stream(instruction, image=images, audio=audio, history=history, **self._options)
        try:
            for event in stream:
                builder.add(event)
                show(event)
        finally:
            stream.close()
        reply = builder.reply
        question = {"role": "user", "content": user_content(instruction, images=parts, audio=sound)}
        self._messages = [*history, question, {"role": "assistant", "content": reply.text}]
        return reply


def _without_images(message: ChatMessage) -> ChatMessage:
    content = message["content"]
    if isinstance(content, str):
        return message
    parts = [part for part in cast("list[Mapping[str, Any]]", content) if part["type"] != "image_url"]
    if all(part["type"] == "text" for part in parts):
        return {**message, "content": "".join(part["text"] for part in parts)}
    return {**message, "content": parts}

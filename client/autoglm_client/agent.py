"""A phone agent's conversation, in the message format of zai-org/Open-AutoGLM (its phone_agent/agent.py).

The first user turn is the task with the current app, later ones are `** Screen Info **`; only the newest turn holds its
screenshot, and the assistant's turns keep thought and action as `<think>...</think><answer>...</answer>`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from autoglm_client.client import AsyncAutoGLM, ChatMessage
from autoglm_client.media import AudioSource, ImageSource
from autoglm_client.reply import ActionReply
from autoglm_protocol.actions import COORDINATE_MAX

OPEN_AUTOGLM_SAMPLING: Mapping[str, Any] = {
    "max_tokens": 3000,
    "temperature": 0.0,
    "top_p": 0.85,
    "frequency_penalty": 0.2,
}


class AgentSession:
    """One task on one phone. Call `step` with each new screenshot until the action is None or `finish`.

    `sampling` goes with every request: depth, temperature, max_tokens, ...; OPEN_AUTOGLM_SAMPLING is the default.
    A step that fails leaves the session as it was, so it can be tried again.
    """

    def __init__(
        self, client: AsyncAutoGLM, task: str = "", *, system_prompt: str | None = None, **sampling: Any
    ) -> None:
        self._client = client
        self._task = task
        self._sampling: dict[str, Any] = {**OPEN_AUTOGLM_SAMPLING, **sampling}
        self._messages: list[ChatMessage] = []
        if system_prompt is not None:
            self._messages.append({"role": "system", "content": system_prompt})
        self._num_steps = 0

    @property
    def history(self) -> tuple[ChatMessage, ...]:
        """The messages before the next step; no turn holds a picture."""
        return tuple(self._messages)

    @property
    def num_steps(self) -> int:
        return self._num_steps

    async def step(
        self, image: ImageSource, current_app: str, *, audio: AudioSource | None = None, note: str | None = None
    ) -> ActionReply:
        """What to do on this screen. `audio` speaks the task (first step), `note` tells the model what the user said
        since its last action. Errors are those of AsyncAutoGLM.stream."""
        text = self._user_text(current_app, note)
        reply = await self._client.act(text, image=image, audio=audio, history=self._messages, **self._sampling)
        turn = f"<think>{reply.thought or ''}</think><answer>{reply.action_text}</answer>"
        self._messages.append({"role": "user", "content": text})
        self._messages.append({"role": "assistant", "content": turn})
        self._num_steps += 1
        return reply

    def _user_text(self, current_app: str, note: str | None) -> str:
        screen = json.dumps({"current_app": current_app}, ensure_ascii=False)
        first = self._task if self._num_steps == 0 else "** Screen Info **"
        return "\n\n".join(part for part in (note, first, screen) if part)


def to_pixels(point: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    """The pixel of a `width` x `height` screen that a point in 0-999 names; always on the screen."""
    scale = COORDINATE_MAX + 1
    return point[0] * width // scale, point[1] * height // scale

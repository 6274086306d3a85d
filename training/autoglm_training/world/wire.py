"""The messages a phone agent sends, in the format of Open-AutoGLM."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from autoglm_training.world.system_prompts import system_prompt
from autoglm_training.world.tasks import Task

# (app in front before the step, the assistant's whole reply)
Turn = tuple[str, str]
Message = tuple[str, str]


def screen_info(app: str) -> str:
    """The JSON line about the screen."""
    return json.dumps({"current_app": app}, ensure_ascii=False)


def agent_messages(
    task: Task, rng: random.Random, history: Sequence[Turn] = (), *, short_system: bool = False
) -> list[Message]:
    """(role, text) from the system prompt to the user turn that awaits `task.reply`.

    The newest screenshot belongs before the text of the last user message; older ones are gone. `history` holds the
    earlier turns of the same instruction.
    """
    messages: list[Message] = [("system", system_prompt(rng, task.language, short=short_system))]
    apps = [app for app, _ in history] + [task.app]
    replies = [reply for _, reply in history]
    for index, app in enumerate(apps):
        head = f"{task.instruction}\n\n" if index == 0 else "** Screen Info **\n\n"
        messages.append(("user", head + screen_info(app)))
        if index < len(replies):
            messages.append(("assistant", replies[index]))
    return messages

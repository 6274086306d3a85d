"""Text from which the tokenizer is trained."""

from __future__ import annotations

import random
from collections.abc import Iterator

from autoglm_training.world.copy_text import copy_text
from autoglm_training.world.elements import COORDINATE_MAX
from autoglm_training.world.episodes import make_episode
from autoglm_training.world.labels import label_vocabulary
from autoglm_training.world.language import LANGUAGES
from autoglm_training.world.running_text import MESSAGES
from autoglm_training.world.screen_tasks import screen_tasks
from autoglm_training.world.screens import make_screen
from autoglm_training.world.text_tasks import text_task
from autoglm_training.world.wire import agent_messages


def corpus(rng: random.Random, n: int) -> Iterator[str]:
    """Every label, message and number once, then `n` passages of instructions, replies and agent messages (train)."""
    yield from label_vocabulary()
    for language in LANGUAGES:
        yield from MESSAGES[language]
    yield from (str(number) for number in range(COORDINATE_MAX + 1))
    for index in range(n):
        kind = index % 8
        if kind < 3:
            task = text_task(rng, "train")
            yield f"{task.instruction}\n{task.reply}"
        elif kind < 5:
            screen = make_screen(rng, "train")
            for task in screen_tasks(rng, screen, "train", 3):
                yield f"{task.instruction}\n{task.reply}"
        elif kind == 5:
            episode = make_episode(rng, "train")
            for step in episode.steps:
                yield f"{step.task.instruction}\n{step.task.reply}"
        elif kind == 6:
            yield copy_text(rng, rng.choice(LANGUAGES))
        else:
            task = text_task(rng, "train")
            for _, text in agent_messages(task, rng):
                yield text

"""Screens and instructions to rows, and the words a row's picture shows."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from autoglm_training.config.recipes import TEXT
from autoglm_training.samples import (
    SCREEN_INFO_HEAD,
    Row,
    RowBuilder,
    app_json,
    done_reply,
    first_turn,
    random_app,
    screen_info,
)
from autoglm_training.screen_targets import SpokenTask
from autoglm_training.world.elements import Screen, Split
from autoglm_training.world.episodes import Episode
from autoglm_training.world.instructions import screen_tasks, text_task
from autoglm_training.world.labels import label_vocabulary

HISTORY_SHARE = 0.2
SPOKEN_APP_SHARE = 0.3
"""Spoken instructions after which the agent's `current_app` follows."""
_DIRECT = ("launch", "back", "home", "swipe_up", "swipe_down", "wait")
_THEN = {"en": "{a}, then {b}", "zh": "{a}，然后{b}"}


def screen_row(
    builder: RowBuilder,
    rng: random.Random,
    screen: Screen,
    split: Split,
    branches: int,
    spoken: Sequence[SpokenTask] = (),
) -> Row:
    """One screen and several first-step questions about it, those that were `spoken` among them."""
    grid = (screen.height_px // 28, screen.width_px // 28)
    row = Row()
    builder.add_text(row, "[gMASK]<sop><|user|>\n")
    builder.add_image(row, grid)
    typed = screen_tasks(rng, screen, split, branches - len(spoken), practice=True)
    for segment, task in enumerate(typed, start=1):
        builder.add_branch(row, segment, first_turn(rng, task, True), task)
    for segment, (task, heard) in enumerate(spoken, start=1 + len(typed)):
        after = "\n\n" + app_json(task.app) if rng.random() < SPOKEN_APP_SHARE else ""
        builder.add_branch(row, segment, after, task, heard)
    return row


def later_step_row(builder: RowBuilder, rng: random.Random, screen: Screen, split: Split) -> Row:
    """A later step of a longer task: history without its pictures, then the newest screenshot, as agents send it."""
    grid = (screen.height_px // 28, screen.width_px // 28)
    row = Row()
    task = screen_tasks(rng, screen, split, 1, practice=True)[0]
    builder.add_text(row, "[gMASK]<sop>")
    kind = rng.random()
    if kind < 0.35:
        earlier = text_task(rng, split, family=rng.choice(_DIRECT), language=task.language)
        both = _THEN[task.language].format(a=earlier.instruction.rstrip(".!?。！？"), b=task.instruction)
        builder.add_text(row, f"<|user|>\n{both}\n\n{app_json(random_app(rng, task.language))}")
        builder.add_text(row, "<|assistant|>\n" + earlier.reply)
        question, reply, box, named = screen_info(screen.app), task.reply, task.target_box, task.named
    elif kind < 0.7:
        builder.add_text(row, f"<|user|>\n{task.instruction}\n\n{app_json(screen.app)}")
        builder.add_text(row, "<|assistant|>\n" + task.reply)
        question, reply, box, named = screen_info(screen.app), done_reply(task), None, ()
    else:
        earlier = text_task(rng, split)
        builder.add_text(row, "<|user|>\n" + first_turn(rng, earlier, True))
        builder.add_text(row, "<|assistant|>\n" + earlier.reply)
        question, reply, box, named = first_turn(rng, task, True), task.reply, task.target_box, task.named
    builder.add_text(row, "<|user|>\n")
    builder.add_image(row, grid)
    builder.add_text(row, question)
    builder.add_reply(row, reply, box=box, named=named)
    return row


def episode_row(builder: RowBuilder, episode: Episode, index: int, screen: Screen) -> Row:
    """Step `index` of an episode as agents send it: the earlier turns without pictures, then the newest screenshot."""
    row = Row()
    builder.add_text(row, "[gMASK]<sop>")
    head = f"{episode.instruction}\n\n"
    for app, reply in episode.history(index):
        builder.add_text(row, f"<|user|>\n{head}{app_json(app)}<|assistant|>\n{reply}")
        head = SCREEN_INFO_HEAD
    builder.add_text(row, "<|user|>\n")
    builder.add_image(row, (screen.height_px // 28, screen.width_px // 28))
    task = episode.steps[index].task
    builder.add_text(row, head + app_json(screen.app))
    builder.add_reply(row, task.reply, box=task.target_box, named=task.named)
    return row


def label_tokens(builder: RowBuilder) -> Tensor:
    """[labels + 1, V]: uniform over the tokens that spell a label, with and without a leading space; row 0 empty."""
    labels = label_vocabulary()
    table = torch.zeros(len(labels) + 1, TEXT.vocab_size)
    for index, label in enumerate(labels, start=1):
        tokens = sorted({*builder.encode(label), *builder.encode(" " + label)})
        table[index, tokens] = 1.0 / len(tokens)
    return table

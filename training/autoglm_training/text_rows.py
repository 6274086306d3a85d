"""Text-only conversations: one command, a later command, the step after a command, or two commands in order."""

from __future__ import annotations

import random

from autoglm_training.samples import Row, RowBuilder, app_json, done_reply, first_turn, random_app, screen_info
from autoglm_training.world.elements import Split
from autoglm_training.world.instructions import Task, text_task
from autoglm_training.world.labels import LANGUAGES
from autoglm_training.world.phrases import phrase
from autoglm_training.world.sayings import thought
from autoglm_training.world.tasks import type_text

REPEATED_SHARE = 0.3
_TEXT_PARTS = ("launch", "back", "home", "type", "swipe_up", "swipe_down", "swipe_left", "swipe_right", "wait")
_THEN = {
    "en": ("{a}, then {b}", "{a} and then {b}", "first {a}, then {b}", "{a}, after that {b}", "{a} and {b}"),
    "zh": ("{a}，然后{b}", "先{a}，再{b}", "{a}，接着{b}", "{a}，之后{b}", "{a}再{b}"),
}


def text_row(builder: RowBuilder, rng: random.Random, split: Split) -> Row:
    """A text-only conversation: one command, a later command, the step after a command, or two commands in order."""
    row = Row()
    builder.add_text(row, "[gMASK]<sop>")
    kind = rng.random()
    if kind < 0.66:
        task = copy_task(builder, rng, split) if kind < 0.16 else text_task(rng, split, app=_front(rng))
        builder.add_text(row, "<|user|>\n" + first_turn(rng, task, True))
        builder.add_reply(row, task.reply)
    elif kind < 0.78:
        _earlier_turns(builder, row, rng, split)
        task = text_task(rng, split, app=_front(rng))
        builder.add_text(row, "<|user|>\n" + first_turn(rng, task, True))
        builder.add_reply(row, task.reply)
    elif kind < 0.88:
        task = text_task(rng, split, app=_front(rng), family=rng.choice(_TEXT_PARTS))
        builder.add_text(row, "<|user|>\n" + first_turn(rng, task, True))
        builder.add_reply(row, task.reply)
        builder.add_text(row, "<|user|>\n" + screen_info(random_app(rng, task.language)))
        builder.add_reply(row, done_reply(task))
    else:
        _two_commands(builder, row, rng, split)
    return row


def copy_task(builder: RowBuilder, rng: random.Random, split: Split) -> Task:
    """Typing of random tokens: what is copied must not be guessable, or copying is not learnt."""
    language = rng.choice(LANGUAGES)
    tokens = rng.choices(builder.copyable, k=rng.randint(1, 7))
    if rng.random() < REPEATED_SHARE:
        # After a token that comes twice, what follows is told by its place alone.
        tokens = rng.choices(tokens[: rng.randint(1, 4)], k=rng.randint(2, 7))
    text = "".join(tokens).strip() or "7"
    sentence = phrase(rng, "type", language, split, {"x": text}, verbatim=frozenset("x"))
    return Task(
        family="type",
        language=language,
        instruction=sentence,
        think=thought("type", language),
        action=type_text(text),
        app=_front(rng) or "System Home",
    )


def _front(rng: random.Random) -> str | None:
    return random_app(rng, rng.choice(LANGUAGES)) if rng.random() < 0.5 else None


def _earlier_turns(builder: RowBuilder, row: Row, rng: random.Random, split: Split) -> None:
    for _ in range(rng.choice((1, 1, 2, 3))):
        earlier = text_task(rng, split, app=_front(rng))
        builder.add_text(row, "<|user|>\n" + first_turn(rng, earlier, True))
        builder.add_reply(row, earlier.reply)
        if earlier.action.startswith("do(") and rng.random() < 0.5:
            builder.add_text(row, "<|user|>\n" + screen_info(random_app(rng, earlier.language)))
            builder.add_reply(row, done_reply(earlier))


def _two_commands(builder: RowBuilder, row: Row, rng: random.Random, split: Split) -> None:
    language = rng.choice(LANGUAGES)
    front = _front(rng)
    first, second = (
        text_task(rng, split, family=rng.choice(_TEXT_PARTS), language=language, app=front) for _ in range(2)
    )
    if first.instruction[-1] in "?？”\"'」" or ":" in first.instruction or "：" in first.instruction:
        first = text_task(rng, split, family="launch", language=language, app=front)
    both = rng.choice(_THEN[language]).format(a=first.instruction.rstrip(".!。！"), b=second.instruction)
    app = front or "System Home"
    builder.add_text(row, "<|user|>\n" + (f"{both}\n\n{app_json(app)}" if rng.random() < 0.8 else both))
    builder.add_reply(row, first.reply)
    builder.add_text(row, "<|user|>\n" + screen_info(random_app(rng, language)))
    builder.add_reply(row, second.reply)
    if rng.random() < 0.6:
        builder.add_text(row, "<|user|>\n" + screen_info(random_app(rng, language)))
        builder.add_reply(row, done_reply(second))

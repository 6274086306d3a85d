"""Texts that teach the tokenizer its merges: wordings with their slots filled, labels, and the action format."""

from __future__ import annotations

import random
from collections.abc import Iterator

from autoglm_training.world.labels import CAPTIONS, LANGUAGES, MESSAGES, QUESTIONS, chinese_characters, label_vocabulary
from autoglm_training.world.phrases import families, phrase

SLOTS = "xkntabc"
ACTIONS = (
    '<think>{x}</think><answer>do(action="Launch", app="{x}")</answer>',
    '<think>{x}</think><answer>do(action="Tap", element=[{n},{m}])</answer>',
    '<think>{x}</think><answer>do(action="Type", text="{x}")</answer>',
    '<think>{x}</think><answer>do(action="Swipe", start=[{n},{m}], end=[{n},{m}])</answer>',
    '<think>{x}</think><answer>do(action="Long Press", element=[{n},{m}])</answer>',
    '<think>{x}</think><answer>do(action="Double Tap", element=[{n},{m}])</answer>',
    '<think>{x}</think><answer>do(action="Take_over", message="{x}")</answer>',
    '<think>{x}</think><answer>do(action="Wait", duration="{s} seconds")</answer>',
    '<think>{x}</think><answer>do(action="Back")</answer>',
    '<think>{x}</think><answer>do(action="Home")</answer>',
    '<think>{x}</think><answer>finish(message="{x}")</answer>',
    '{x}\n\n{"current_app": "{x}"}',
    '** Screen Info **\n\n{"current_app": "{x}"}',
)


def tokenizer_texts(seed: int, count: int = 60_000) -> Iterator[str]:
    """About `count` lines, the same for the same seed."""
    rng = random.Random(seed)
    labels = label_vocabulary()
    known = families()
    for language in LANGUAGES:
        yield from MESSAGES[language]
        yield from CAPTIONS[language]
        yield from (text for text, _ in QUESTIONS[language])
    # Labels are what every instruction, thought and screen shares: four of them to every wording.
    for _ in range(count // 2):
        yield " ".join(rng.choices(labels, k=2))
        for template in rng.sample(ACTIONS, 2):
            text = template.replace("{x}", rng.choice(labels)).replace("{s}", str(rng.randint(1, 60)))
            yield text.replace("{n}", str(rng.randint(0, 999))).replace("{m}", str(rng.randint(0, 999)))
    for _ in range(count):
        language = rng.choice(LANGUAGES)
        slots = {slot: rng.choice(labels) if slot != "n" else str(rng.randint(1, 60)) for slot in SLOTS}
        yield phrase(rng, rng.choice(known), language, "train", slots)


def tokenizer_characters() -> tuple[str, ...]:
    """Characters that shall each be one token."""
    return chinese_characters()

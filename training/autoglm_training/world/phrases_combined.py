"""Train wordings from parts: every verb with every object, so that the parts are learnt and not whole sentences.

"<a|b|>" stands for one of the parts between the bars. The test split's sentences are taken out where these are used.
"""

from __future__ import annotations

import itertools
import re
from functools import cache

from autoglm_training.world import phrases_parts_en, phrases_parts_zh
from autoglm_training.world.language import Language

_CHOICE = re.compile(r"<([^<>]*)>")
_PARTS: dict[str, dict[str, tuple[str, ...]]] = {"en": phrases_parts_en.PARTS, "zh": phrases_parts_zh.PARTS}

MORE_FRAMES: dict[str, tuple[str, ...]] = {
    "en": (
        "{c} right now", "hey AutoGLM, {c}", "quickly {c}", "could you {c} for me?", "kindly {c}", "{c}, thanks",
        "please {c} now", "AutoGLM, {c}", "I would like you to {c}", "well, {c}", "so {c}", "{c}, will you?",
        "please just {c}", "can you please {c}?", "you should {c}", "{c} again", "and {c}", "help me {c}",
    ),
    "zh": (
        "{c}好吗", "{c}行吗？", "请你{c}", "你{c}", "那就{c}", "好，{c}", "请现在{c}", "AutoGLM，{c}", "{c}，快点",
        "你给我{c}", "可不可以{c}", "请马上{c}", "帮忙{c}", "能{c}吗", "{c}，好不好", "我要你{c}",
    ),
}  # fmt: skip


@cache
def combined(family: str, language: Language) -> tuple[str, ...]:
    """Every sentence of a family's parts; none where there are no parts for it."""
    sentences = (sentence for pattern in _PARTS[language].get(family, ()) for sentence in _spelled(pattern))
    return tuple(dict.fromkeys(sentences))


def _spelled(pattern: str) -> list[str]:
    pieces = _CHOICE.split(pattern)
    choices = [piece.split("|") if index % 2 else [piece] for index, piece in enumerate(pieces)]
    return ["".join(parts) for parts in itertools.product(*choices)]

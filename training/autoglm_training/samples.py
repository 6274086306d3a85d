"""Tasks to token rows: a shared prefix (perhaps with a picture or a clip) and question/answer branches after it.

A row's branches do not see one another and all start at the position after the prefix, so one screen answers several
instructions for the price of one prefix. Loss falls on replies only.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass, field

import numpy as np
from tokenizers import Tokenizer

from autoglm_training.tokenizer import EOS_TOKENS, NUM_NUMBERS, number_token_ids, token_id
from autoglm_training.world.elements import Split
from autoglm_training.world.instructions import Task, text_task
from autoglm_training.world.labels import APPS, LANGUAGES, names
from autoglm_training.world.phrases import phrase
from autoglm_training.world.sayings import answer, thought
from autoglm_training.world.tasks import finish, type_text

IGNORE = -100
_POINT = re.compile(r"element=\[(\d+),(\d+)\]")
_UNTYPEABLE = re.compile(r"""["\\'“”「」<>|\[\]{}]""")
_TEXT_PARTS = ("launch", "back", "home", "type", "swipe_up", "swipe_down", "swipe_left", "swipe_right", "wait")
_THEN = {
    "en": ("{a}, then {b}", "{a} and then {b}", "first {a}, then {b}", "{a}, after that {b}", "{a} and {b}"),
    "zh": ("{a}，然后{b}", "先{a}，再{b}", "{a}，接着{b}", "{a}，之后{b}", "{a}再{b}"),
}


@dataclass(slots=True)
class Row:
    """One sequence. `targets` is the token itself where it is learnt, IGNORE elsewhere; `points` marks coordinates."""

    ids: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    points: list[bool] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    positions: list[tuple[int, int, int]] = field(default_factory=list)
    next_position: int = 0


def copyable_tokens(tokenizer: Tokenizer) -> tuple[str, ...]:
    """Texts of the tokens that may stand inside a typed text: whole characters, no quotes, no line breaks."""
    texts = (tokenizer.decode([index], skip_special_tokens=False) for index in range(tokenizer.get_vocab_size()))
    return tuple(
        text
        for text in texts
        if text.strip() and text.isprintable() and not _UNTYPEABLE.search(text) and "\ufffd" not in text
    )


class RowBuilder:
    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.numbers = number_token_ids(tokenizer)
        self.value_of = {token: value for value, token in enumerate(self.numbers)}
        self.image = token_id(tokenizer, "<|image|>")
        self.audio = token_id(tokenizer, "<|audio|>")
        self.end = token_id(tokenizer, EOS_TOKENS[-1])
        self.copyable = copyable_tokens(tokenizer)
        self._media = {
            "image": ("<|begin_of_image|>", "<|end_of_image|>"),
            "audio": ("<|begin_of_audio|>", "<|end_of_audio|>"),
        }

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def add_text(self, row: Row, text: str, segment: int = 0) -> None:
        for token in self.encode(text):
            self._add(row, token, IGNORE, False, segment, (row.next_position,) * 3)
            row.next_position += 1

    def add_image(self, row: Row, grid: tuple[int, int]) -> None:
        """A picture of `grid` merged tokens (rows, columns) between its marks."""
        first, last = self._media["image"]
        self.add_text(row, first)
        start = row.next_position
        for line in range(grid[0]):
            for column in range(grid[1]):
                self._add(row, self.image, IGNORE, False, 0, (start, start + line, start + column))
        row.next_position = start + max(grid)
        self.add_text(row, last)

    def add_audio(self, row: Row, num_tokens: int, segment: int = 0) -> None:
        first, last = self._media["audio"]
        self.add_text(row, first, segment)
        for _ in range(num_tokens):
            self._add(row, self.audio, IGNORE, False, segment, (row.next_position,) * 3)
            row.next_position += 1
        self.add_text(row, last, segment)

    def add_reply(self, row: Row, reply: str, segment: int = 0) -> None:
        """The assistant's turn; every token of it is learnt, its end included."""
        self.add_text(row, "<|assistant|>\n", segment)
        match = _POINT.search(reply)
        span = match.span() if match else (-1, -1)
        encoding = self.tokenizer.encode(reply, add_special_tokens=False)
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            point = span[0] <= start and end <= span[1] and token in self.value_of
            self._add(row, token, token, point, segment, (row.next_position,) * 3)
            row.next_position += 1

    def add_branch(self, row: Row, segment: int, question: str, reply: str) -> None:
        """One question and its answer after the prefix; the prefix's end is where every branch starts."""
        start = row.next_position
        self.add_text(row, question, segment)
        self.add_reply(row, reply, segment)
        row.next_position = start

    @staticmethod
    def _add(row: Row, token: int, target: int, point: bool, segment: int, position: tuple[int, ...]) -> None:
        row.ids.append(token)
        row.targets.append(target)
        row.points.append(point)
        row.segments.append(segment)
        row.positions.append((position[0], position[1], position[2]))


def app_json(app: str) -> str:
    return json.dumps({"current_app": app}, ensure_ascii=False)


def first_turn(rng: random.Random, task: Task) -> str:
    """The user's text of a first step: bare, or with the app in front, as phone agents send it."""
    return task.instruction if rng.random() < 0.5 else f"{task.instruction}\n\n{app_json(task.app)}"


def screen_info(app: str) -> str:
    return f"** Screen Info **\n\n{app_json(app)}"


def done_reply(task: Task) -> str:
    """What follows when the one action of the task has been carried out."""
    return f"<think>{thought('done', task.language)}</think><answer>{finish(answer('done', task.language))}</answer>"


def random_app(rng: random.Random, language: str) -> str:
    return rng.choice((*names(APPS, LANGUAGES[LANGUAGES.index(language)]), "System Home"))  # type: ignore[arg-type]


def text_row(builder: RowBuilder, rng: random.Random, split: Split) -> Row:
    """A text-only conversation: one command, a later command, the step after a command, or two commands in order."""
    row = Row()
    builder.add_text(row, "[gMASK]<sop>")
    kind = rng.random()
    if kind < 0.66:
        task = copy_task(builder, rng, split) if kind < 0.16 else text_task(rng, split, app=_front(rng))
        builder.add_text(row, "<|user|>\n" + first_turn(rng, task))
        builder.add_reply(row, task.reply)
    elif kind < 0.78:
        _earlier_turns(builder, row, rng, split)
        task = text_task(rng, split, app=_front(rng))
        builder.add_text(row, "<|user|>\n" + first_turn(rng, task))
        builder.add_reply(row, task.reply)
    elif kind < 0.88:
        task = text_task(rng, split, app=_front(rng), family=rng.choice(_TEXT_PARTS))
        builder.add_text(row, "<|user|>\n" + first_turn(rng, task))
        builder.add_reply(row, task.reply)
        builder.add_text(row, "<|user|>\n" + screen_info(random_app(rng, task.language)))
        builder.add_reply(row, done_reply(task))
    else:
        _two_commands(builder, row, rng, split)
    return row


def copy_task(builder: RowBuilder, rng: random.Random, split: Split) -> Task:
    """Typing of random tokens: what is copied must not be guessable, or copying is not learnt."""
    language = rng.choice(LANGUAGES)
    text = "".join(rng.choices(builder.copyable, k=rng.randint(1, 7))).strip() or "7"
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
        builder.add_text(row, "<|user|>\n" + first_turn(rng, earlier))
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Padded rows. segments_BT is None when no row branches (plain causal attention)."""

    ids_BT: np.ndarray
    targets_BT: np.ndarray
    points_BT: np.ndarray
    positions_3BT: np.ndarray
    segments_BT: np.ndarray | None


def collate(rows: list[Row]) -> Batch:
    """Right-padded arrays; pads are never looked at by tokens before them and carry no loss."""
    length = max(len(row.ids) for row in rows)
    ids = np.zeros((len(rows), length), dtype=np.int64)
    targets = np.full((len(rows), length), IGNORE, dtype=np.int64)
    points = np.zeros((len(rows), length), dtype=bool)
    segments = np.zeros((len(rows), length), dtype=np.int64)
    positions = np.zeros((3, len(rows), length), dtype=np.int64)
    for index, row in enumerate(rows):
        count = len(row.ids)
        ids[index, :count] = row.ids
        targets[index, :count] = row.targets
        points[index, :count] = row.points
        segments[index, :count] = row.segments
        positions[:, index, :count] = np.asarray(row.positions).T
    return Batch(
        ids_BT=ids,
        targets_BT=targets,
        points_BT=points,
        positions_3BT=positions,
        segments_BT=segments if segments.any() else None,
    )


assert NUM_NUMBERS == 1000

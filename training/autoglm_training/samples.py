"""Tasks to token rows: a shared prefix (perhaps with a picture or a clip) and question/answer branches after it.

A row's branches do not see one another and all start at the position after the prefix, so one screen answers several
instructions for the price of one prefix. Loss falls on replies only.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from tokenizers import Tokenizer

from autoglm_training.tokenizer import EOS_TOKENS, NUM_NUMBERS, number_token_ids, token_id
from autoglm_training.world.instructions import Task
from autoglm_training.world.labels import APPS, LANGUAGES, names
from autoglm_training.world.sayings import answer, thought
from autoglm_training.world.tasks import finish

IGNORE = -100
Box = tuple[int, int, int, int]
_POINT = re.compile(r"element=\[(\d+),(\d+)\]")
NOISY_SHARE = 0.4
SCREEN_INFO_HEAD = "** Screen Info **\n\n"
DECIDING = frozenset({
    "up", "down", "left", "right", "back", "home", "top", "bottom", "on", "off", "more", "below", "above", "under",
    "over", "previous", "next", "last", "first", "not", "cheapest", "expensive", "long", "double", "twice", "highest",
    "lowest", "who", "what", "app", "open", "tap", "no", "without",
}) | frozenset("上下左右前后返回退桌面主屏开关不第一二三四五六七八九长双两最高低贵便宜谁什么别没")  # fmt: skip
FILLERS = {
    "en": ("once", "a", "bit", "the", "please", "now", "again", "page", "screen", "just", "here", "this", "quickly"),
    "zh": ("一下", "吧", "呀", "再", "就", "这个", "请", "快", "好", "页面", "啊"),
}
_UNTYPEABLE = re.compile(r"""["\\'“”「」<>|\[\]{}]""")


@dataclass(slots=True)
class Row:
    """One sequence. `targets` is the token itself where it is learnt, IGNORE elsewhere; `points` marks coordinates, and
    `boxes` holds the box in 0..999 that each of them must hit and the box of what a word of the thought is about."""

    ids: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    points: list[bool] = field(default_factory=list)
    boxes: list[Box | None] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    positions: list[tuple[int, int, int]] = field(default_factory=list)
    next_position: int = 0


def add_tokens(row: Row, ids: Sequence[int], segment: int = 0) -> None:
    """Tokens that carry no loss; each moves on by one position on every axis."""
    for token in ids:
        _add(row, token, segment, (row.next_position,) * 3)
        row.next_position += 1


def add_picture(row: Row, token: int, grid: tuple[int, int]) -> None:
    """A picture's placeholders: `grid` merged tokens (rows, columns) at one moment, spread over two axes."""
    start = row.next_position
    for line in range(grid[0]):
        for column in range(grid[1]):
            _add(row, token, 0, (start, start + line, start + column))
    row.next_position = start + max(grid)


def _add(
    row: Row,
    token: int,
    segment: int,
    position: tuple[int, ...],
    target: int = IGNORE,
    point: bool = False,
    box: Box | None = None,
) -> None:
    row.ids.append(token)
    row.targets.append(target)
    row.points.append(point)
    row.boxes.append(box)
    row.segments.append(segment)
    row.positions.append((position[0], position[1], position[2]))


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
        add_tokens(row, self.encode(text), segment)

    def add_image(self, row: Row, grid: tuple[int, int]) -> None:
        """A picture of `grid` merged tokens (rows, columns) between its marks."""
        first, last = self._media["image"]
        self.add_text(row, first)
        add_picture(row, self.image, grid)
        self.add_text(row, last)

    def add_audio(self, row: Row, num_tokens: int, segment: int = 0) -> None:
        first, last = self._media["audio"]
        self.add_text(row, first, segment)
        add_tokens(row, [self.audio] * num_tokens, segment)
        self.add_text(row, last, segment)

    def add_heard(self, row: Row, ids: Sequence[int], segment: int = 0) -> None:
        """A clip as the ids that the speech encoder heard, between the audio's marks."""
        first, last = self._media["audio"]
        self.add_text(row, first, segment)
        add_tokens(row, ids, segment)
        self.add_text(row, last, segment)

    def add_reply(
        self, row: Row, reply: str, segment: int = 0, box: Box | None = None, named: Sequence[tuple[str, Box]] = ()
    ) -> None:
        """The assistant's turn; every token of it is learnt, its end included.

        box: what a tap must hit; named: texts of the thought and the boxes of what they name, in order, the tap's last.
        """
        self.add_text(row, "<|assistant|>\n", segment)
        match = _POINT.search(reply)
        span = match.span() if match else (-1, -1)
        places = _named_places(reply, named)
        # Not the knob of a switch but its whole row, which every part of it tells to be the knob's: the label is there.
        hit = places[-1][2] if places else box
        encoding = self.tokenizer.encode(reply, add_special_tokens=False)
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            point = span[0] <= start and end <= span[1] and token in self.value_of
            # The last of the places it reaches into: a name's first token begins with the space before the name.
            about = [place for first, last, place in places if start < last and end > first]
            _add(row, token, segment, (row.next_position,) * 3, token, point, hit if point else (about or [None])[-1])
            row.next_position += 1

    def add_branch(self, row: Row, segment: int, question: str, task: Task, heard: Sequence[int] | None = None) -> None:
        """One question, spoken where it was `heard` before the rest of it, and the task's reply after the prefix; the
        prefix's end is where every branch starts."""
        start = row.next_position
        if heard is not None:
            self.add_heard(row, heard, segment)
        self.add_text(row, question, segment)
        self.add_reply(row, task.reply, segment, task.target_box, task.named)
        row.next_position = start


def _named_places(reply: str, named: Sequence[tuple[str, Box]]) -> list[tuple[int, int, Box]]:
    """(first character, end, box) of each: from its text on, what the thought says about it included."""
    end = max(0, reply.find("</think>"))
    places: list[tuple[int, int, Box]] = []
    start = 0
    for text, box in named:
        first = reply.find(text, start, end)
        if first < 0:
            continue
        if places:
            places[-1] = (places[-1][0], first, places[-1][2])
        places.append((first, end, box))
        start = first + len(text)
    return places


def app_json(app: str) -> str:
    return json.dumps({"current_app": app}, ensure_ascii=False)


def first_turn(rng: random.Random, task: Task, noisy: bool = False) -> str:
    """The user's text of a first step: bare, or with the app in front, as phone agents send it."""
    instruction = noisy_words(rng, task) if noisy and rng.random() < NOISY_SHARE else task.instruction
    return instruction if rng.random() < 0.5 else f"{instruction}\n\n{app_json(task.app)}"


def noisy_words(rng: random.Random, task: Task) -> str:
    """The instruction with a word missing or a filler added: wordings are few, and without noise the model hangs its
    answer on single words of them ("once" meant up). Words that decide, and all that the reply repeats, stay."""
    if task.family.startswith(("type", "search", "wait")):
        return task.instruction
    chinese = task.language == "zh"
    words = list(task.instruction) if chinese else task.instruction.split(" ")
    said = f"{task.think} {task.action}".lower()
    kept: list[str] = []
    for word in words:
        bare = word.strip(".,!?\"'。，！？").lower()
        decides = bare in DECIDING or bare in said or not bare.isalpha()
        if decides or rng.random() > 0.12:
            kept.append(word)
        if rng.random() < 0.05:
            kept.append(rng.choice(FILLERS[task.language]))
    return ("" if chinese else " ").join(kept) if len(kept) > len(words) // 2 else task.instruction


def screen_info(app: str) -> str:
    return f"{SCREEN_INFO_HEAD}{app_json(app)}"


def done_reply(task: Task) -> str:
    """What follows when the one action of the task has been carried out."""
    return f"<think>{thought('done', task.language)}</think><answer>{finish(answer('done', task.language))}</answer>"


def random_app(rng: random.Random, language: str) -> str:
    return rng.choice((*names(APPS, LANGUAGES[LANGUAGES.index(language)]), "System Home"))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Padded rows.

    boxes_BT4: the box in 0..999 that the token is about: to hit where `points_BT`; NaN where there is none
    prefix_length, num_branches: layout of rows that branch: that many prefix columns, then branches of equal width;
    num_branches is 0 for plain causal rows.
    """

    ids_BT: np.ndarray
    targets_BT: np.ndarray
    points_BT: np.ndarray
    boxes_BT4: np.ndarray
    positions_3BT: np.ndarray
    real_BT: np.ndarray
    prefix_length: int = 0
    num_branches: int = 0


def collate(rows: list[Row]) -> Batch:
    """Rows without branches, right-padded: pads are never looked at by tokens before them and carry no loss."""
    return _fill(rows, [list(range(len(row.ids))) for row in rows], max(len(row.ids) for row in rows))


def collate_branches(rows: list[Row]) -> Batch:
    """Rows of one prefix and several branches: prefixes padded to one length, every branch to another."""
    prefix = max(sum(segment == 0 for segment in row.segments) for row in rows)
    branches = max(max(row.segments) for row in rows)
    width = max(row.segments.count(branch) for row in rows for branch in range(1, branches + 1))
    places: list[list[int]] = []
    for row in rows:
        used: dict[int, int] = {}
        columns: list[int] = []
        for segment in row.segments:
            start = 0 if segment == 0 else prefix + (segment - 1) * width
            columns.append(start + used.get(segment, 0))
            used[segment] = used.get(segment, 0) + 1
        places.append(columns)
    return _fill(rows, places, prefix + branches * width, prefix, branches)


def _fill(rows: list[Row], places: list[list[int]], length: int, prefix: int = 0, branches: int = 0) -> Batch:
    ids = np.zeros((len(rows), length), dtype=np.int64)
    targets = np.full((len(rows), length), IGNORE, dtype=np.int64)
    points = np.zeros((len(rows), length), dtype=bool)
    boxes = np.full((len(rows), length, 4), np.nan, dtype=np.float32)
    real = np.zeros((len(rows), length), dtype=bool)
    positions = np.zeros((3, len(rows), length), dtype=np.int64)
    for index, (row, columns) in enumerate(zip(rows, places, strict=True)):
        ids[index, columns] = row.ids
        targets[index, columns] = row.targets
        points[index, columns] = row.points
        real[index, columns] = True
        for column, box in zip(columns, row.boxes, strict=True):
            if box is not None:
                boxes[index, column] = box
        positions[:, index, columns] = np.asarray(row.positions).T
    return Batch(
        ids_BT=ids,
        targets_BT=targets,
        points_BT=points,
        boxes_BT4=boxes,
        positions_3BT=positions,
        real_BT=real,
        prefix_length=prefix,
        num_branches=branches,
    )


assert NUM_NUMBERS == 1000

"""Which character a ViT patch shows, and which label or number a merged token, from boxes in pixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import ImageFont

from autoglm_training.world.labels import character_ids, label_ids
from autoglm_training.world.numbers import number_class, written_number

PATCH_PX = 14
TOKEN_PX = 28
# A patch with less ink area than this many square pixels (of 196) is background.
MIN_PATCH_AREA = 28.0
# The same for a merged token (of 784).
MIN_TOKEN_AREA = 90.0

Box = tuple[float, float, float, float]


def character_boxes(text: str, x: float, y: float, font: ImageFont.FreeTypeFont) -> Iterator[tuple[str, Box]]:
    """Each visible character's box: its advance wide, the whole line's ink high. `(x, y)` is the "la" anchor."""
    _, top, _, bottom = font.getbbox(text, anchor="la")
    left = x
    for count, character in enumerate(text, start=1):
        right = x + font.getlength(text[:count])
        if character != " ":
            yield character, (left, y + top, right, y + bottom)
        left = right


class GridPainter:
    """Collects text drawn on one picture into `char_patch_ids`, `word_token_ids` and `number_token_ids`.

    Later text wins only where it covers more of a cell than what is there.
    """

    def __init__(self, width_px: int, height_px: int) -> None:
        self._char_rows, self._char_columns = height_px // PATCH_PX, width_px // PATCH_PX
        self._word_rows, self._word_columns = height_px // TOKEN_PX, width_px // TOKEN_PX
        self._chars: dict[tuple[int, int], tuple[float, int]] = {}
        self._words: dict[tuple[int, int], tuple[float, int]] = {}
        self._numbers: dict[tuple[int, int], tuple[float, int]] = {}
        self._character_ids = character_ids()
        self._label_ids = label_ids()

    def add_text(self, text: str, x: float, y: float, font: ImageFont.FreeTypeFont) -> None:
        """Adds one drawn line; `(x, y)` is where its "la" anchor was drawn."""
        left, top, right, bottom = float("inf"), 0.0, 0.0, 0.0
        ids = self._character_ids
        for character, box in character_boxes(text, x, y, font):
            self._cover(self._chars, box, PATCH_PX, self._char_rows, self._char_columns, ids.get(character, 0))
            left, top, right, bottom = min(left, box[0]), box[1], box[2], box[3]
        label = self._label_ids.get(text)
        line_box = (left, top, right, bottom)
        if label is not None:
            self._cover(self._words, line_box, TOKEN_PX, self._word_rows, self._word_columns, label + 1)
        number = written_number(text)
        if number is not None:
            self._cover(self._numbers, line_box, TOKEN_PX, self._word_rows, self._word_columns, number_class(number))

    def char_patch_ids(self) -> np.ndarray:
        """int16 [height/14, width/14]: class in `character_vocabulary()`, 0 for background."""
        return self._grid(self._chars, self._char_rows, self._char_columns, MIN_PATCH_AREA)

    def word_token_ids(self) -> np.ndarray:
        """int16 [height/28, width/28]: label index + 1, 0 for none."""
        return self._grid(self._words, self._word_rows, self._word_columns, MIN_TOKEN_AREA)

    def number_token_ids(self) -> np.ndarray:
        """int16 [height/28, width/28]: class of the number written there (`numbers.number_class`), 0 for none."""
        return self._grid(self._numbers, self._word_rows, self._word_columns, MIN_TOKEN_AREA)

    @staticmethod
    def _cover(
        cells: dict[tuple[int, int], tuple[float, int]], box: Box, size: int, rows: int, columns: int, value: int
    ) -> None:
        x0, y0, x1, y1 = box
        for row in range(max(0, int(y0 // size)), min(rows, int(-(-y1 // size)))):
            height = min(y1, (row + 1) * size) - max(y0, row * size)
            for column in range(max(0, int(x0 // size)), min(columns, int(-(-x1 // size)))):
                area = height * (min(x1, (column + 1) * size) - max(x0, column * size))
                if area > cells.get((row, column), (0.0, 0))[0]:
                    cells[row, column] = (area, value)

    @staticmethod
    def _grid(cells: dict[tuple[int, int], tuple[float, int]], rows: int, columns: int, least: float) -> np.ndarray:
        grid = np.zeros((rows, columns), dtype=np.int16)
        for (row, column), (area, value) in cells.items():
            if area >= least:
                grid[row, column] = value
        return grid

"""Draws a sheet of phone screens with their instructions: `python -m autoglm_training.world.contact_sheet`."""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from autoglm_training.world.elements import Screen
from autoglm_training.world.fonts import CHINESE_FACE, font
from autoglm_training.world.instructions import Task, screen_tasks
from autoglm_training.world.language import LANGUAGES
from autoglm_training.world.screens import TEMPLATES, make_screen, render

SEED = 24
COLUMNS = 8
ROWS = 3
_SCALE = 0.75
_CELL_WIDTH, _CELL_HEIGHT = 226, 560
_CAPTION_PX = 13
_MARK = (255, 40, 90)


def draw_sheet(seed: int = SEED) -> Image.Image:
    """`COLUMNS` x `ROWS` screens, each with one task: target box, instruction, action."""
    rng = random.Random(seed)
    sheet = Image.new("RGB", (COLUMNS * _CELL_WIDTH + 12, ROWS * _CELL_HEIGHT + 12), (70, 74, 84))
    for index in range(COLUMNS * ROWS):
        template = TEMPLATES[index % len(TEMPLATES)]
        language = LANGUAGES[(index + index // len(TEMPLATES)) % 2]
        screen = make_screen(rng, "train", template=template, language=language)
        while (screen.width_px, screen.height_px) != (280, 616):
            screen = make_screen(rng, "train", template=template, language=language)
        task = next((t for t in screen_tasks(rng, screen, "train", 8) if t.target_box), None)
        row, column = divmod(index, COLUMNS)
        _cell(sheet, screen, task, 12 + column * _CELL_WIDTH, 12 + row * _CELL_HEIGHT)
    return sheet


def _cell(sheet: Image.Image, screen: Screen, task: Task | None, left: int, top: int) -> None:
    picture = render(screen, _SCALE).image
    draw = ImageDraw.Draw(picture)
    if task is not None and task.target_box is not None:
        width, height = picture.size
        x0, y0, x1, y1 = task.target_box
        draw.rectangle(
            (x0 * width // 1000, y0 * height // 1000, x1 * width // 1000, y1 * height // 1000), None, _MARK, 2
        )
    sheet.paste(picture, (left, top))
    if task is None:
        return
    pen = ImageDraw.Draw(sheet)
    letters = font(CHINESE_FACE, _CAPTION_PX)
    y = top + picture.height + 6
    for text, colour in ((task.instruction, (255, 255, 255)), (task.action, (170, 220, 255))):
        for line in _wrapped(text, picture.width + 6):
            pen.text((left, y), line, font=letters, fill=colour)
            y += _CAPTION_PX + 4


def _wrapped(text: str, width_px: int) -> list[str]:
    letters = font(CHINESE_FACE, _CAPTION_PX)
    lines, line = [], ""
    for character in text:
        if letters.getlength(line + character) > width_px:
            lines.append(line)
            line = character.lstrip()
        else:
            line += character
    return [*lines, line]


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the sheet; returns the exit status."""
    parser = argparse.ArgumentParser(prog="contact_sheet", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/phone_world.png"))
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args(argv)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    draw_sheet(options.seed).save(options.output, optimize=True)
    print(f"{options.output}: {options.output.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

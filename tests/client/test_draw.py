from __future__ import annotations

import pytest
from PIL import Image, ImageChops

from autoglm_client.draw import ACCENT, describe, draw_action
from autoglm_protocol.actions import parse_action

WHITE = (255, 255, 255)


def screen(width: int = 1080, height: int = 2376) -> Image.Image:
    return Image.new("RGB", (width, height), WHITE)


def test_a_tap_is_marked_at_its_pixel_and_the_original_stays_clean() -> None:
    original = screen()
    drawn = draw_action(original, parse_action('do(action="Tap", element=[500,250])'))
    assert drawn.getpixel((540, 594)) == ACCENT
    assert original.getcolors() == [(1080 * 2376, WHITE)]


def test_a_swipe_is_drawn_from_its_start_to_its_end() -> None:
    drawn = draw_action(screen(), parse_action('do(action="Swipe", start=[500,800], end=[500,200])'))
    assert drawn.getpixel((540, 1188)) == ACCENT
    assert drawn.getpixel((540, 495)) == ACCENT
    assert drawn.getpixel((540, 2000)) == WHITE


def test_a_swipe_of_no_length_is_drawn() -> None:
    drawn = draw_action(screen(), parse_action('do(action="Swipe", start=[500,500], end=[500,500])'))
    assert ImageChops.difference(drawn, screen()).getbbox() is not None


@pytest.mark.parametrize("name", ["Tap", "Long Press", "Double Tap"])
@pytest.mark.parametrize("corner", ["[0,0]", "[999,0]", "[0,999]", "[999,999]"])
def test_a_point_in_any_corner_has_its_label_on_the_picture(name: str, corner: str) -> None:
    drawn = draw_action(screen(), parse_action(f'do(action="{name}", element={corner})'))
    box = ImageChops.difference(drawn, screen()).getbbox()
    assert box is not None
    assert box[2] - box[0] > 200  # wider than the ring: the label


def test_kinds_of_taps_look_different() -> None:
    drawn = [
        draw_action(screen(), parse_action(f'do(action="{name}", element=[500,500])')).crop((440, 1080, 640, 1280))
        for name in ("Tap", "Long Press", "Double Tap")
    ]
    assert len({image.tobytes() for image in drawn}) == 3


@pytest.mark.parametrize(
    "text", ['do(action="Back")', 'do(action="Launch", app="微信")', f'finish(message="{"long words " * 60}")']
)
def test_an_action_without_a_point_is_a_label_at_the_bottom(text: str) -> None:
    box = ImageChops.difference(draw_action(screen(), parse_action(text)), screen()).getbbox()
    assert box is not None
    assert box[1] > 2376 * 0.8


@pytest.mark.parametrize("mode", ["RGBA", "L", "P"])
@pytest.mark.parametrize("size", [(64, 64), (2400, 1080)])
def test_any_kind_of_picture_can_be_drawn_on(mode: str, size: tuple[int, int]) -> None:
    drawn = draw_action(Image.new(mode, size), parse_action('do(action="Tap", element=[500,500])'))
    assert (drawn.mode, drawn.size) == ("RGB", size)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('do(action="Tap", element=[1,2])', "Tap (1, 2)"),
        ('do(action="Swipe", start=[1,2], end=[3,4])', "Swipe (1, 2) to (3, 4)"),
        ('do(action="Type", text="hello")', "Type hello"),
        ('do(action="Home")', "Home"),
        ('finish(message="Done")', "finish: Done"),
    ],
)
def test_an_action_is_described_in_a_few_words(text: str, words: str) -> None:
    assert describe(parse_action(text)) == words

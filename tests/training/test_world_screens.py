import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from autoglm_training.world.canvas import Canvas
from autoglm_training.world.draw import Text, ink_span, text_width
from autoglm_training.world.elements import SPLITS, Element, Screen, Split
from autoglm_training.world.examples import EXAMPLES, PHONE_SCALE
from autoglm_training.world.labels import label_ids, label_vocabulary
from autoglm_training.world.noise import disturbed
from autoglm_training.world.screens import TEMPLATES, build_screen, make_scene, make_screen, render, screenshot


def _screens(count: int, seed: int = 7) -> list[Screen]:
    rng = random.Random(seed)
    return [make_screen(rng, split) for split in SPLITS for _ in range(count)]


def _overlap(first: tuple[float, ...], second: tuple[float, ...], slack: float = 0.0) -> bool:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return width > slack and height > slack


def _text_boxes(screen: Screen) -> list[tuple[float, float, float, float]]:
    found = []
    for op in screen.ops:
        if isinstance(op, Text):
            width = text_width(op.face, op.size, op.text)
            top, bottom = ink_span(op.face, op.size, op.text)
            left = op.x - {"left": 0.0, "middle": width / 2, "right": width}[op.align]
            found.append((left, op.y + top, left + width, op.y + bottom))
    return found


def test_same_seed_draws_the_same_screen():
    first, second = (make_screen(random.Random(3), "train") for _ in range(2))
    assert first == second
    assert render(first).image.tobytes() == render(second).image.tobytes()


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_template_offers_something_to_touch(template: str, language: str):
    screen = make_screen(random.Random(1), "train", template=template, language=language)  # type: ignore[arg-type]
    assert screen.template == template
    assert screen.language == language
    assert screen.elements


def test_boxes_lie_inside_the_screen():
    for screen in _screens(150):
        for element in screen.elements:
            for x0, y0, x1, y1 in (element.box_px, element.tap_box_px):
                assert 0 <= x0 < x1 <= screen.width_px
                assert 0 <= y0 < y1 <= screen.height_px


def test_elements_do_not_overlap():
    for screen in _screens(150):
        for first, second in itertools.combinations(screen.elements, 2):
            assert not _overlap(first.box_px, second.box_px), (screen.scene, first.label, second.label)


def test_text_overlaps_no_other_text():
    for screen in _screens(150):
        for first, second in itertools.combinations(_text_boxes(screen), 2):
            assert not _overlap(first, second, slack=0.5), screen.scene


def test_a_tap_box_lies_in_its_element():
    for screen in _screens(60):
        for element in screen.elements:
            x0, y0, x1, y1 = element.tap_box_px
            assert element.box_px[0] <= x0 < x1 <= element.box_px[2]
            assert element.box_px[1] <= y0 < y1 <= element.box_px[3]


def test_a_tap_on_the_centre_hits_the_element():
    for screen in _screens(60):
        for element in screen.elements:
            assert screen.at_999(*screen.point_999(element)) == element


def test_grids_have_a_cell_per_patch_and_per_merged_token():
    rng = random.Random(4)
    for _ in range(30):
        screen = make_screen(rng, "train")
        drawn = render(screen)
        assert drawn.image.size == (screen.width_px, screen.height_px)
        assert drawn.char_patch_ids.shape == (screen.height_px // 14, screen.width_px // 14)
        assert drawn.word_token_ids.shape == (screen.height_px // 28, screen.width_px // 28)


def test_the_label_of_a_settings_row_is_found_in_the_word_grid():
    screen = make_screen(random.Random(6), "train", template="settings", language="en")
    words = set(render(screen).word_token_ids.ravel().tolist())
    rows = [element.label for element in screen.elements if element.group == "rows"]
    assert rows
    assert {label_ids()[label] + 1 for label in rows} <= words


def test_labels_of_elements_are_in_the_vocabulary():
    known = set(label_vocabulary())
    for screen in _screens(60):
        for element in screen.elements:
            spoken = element.kind in ("key", "text") or element.group == "glyphs" or screen.template == "alarms"
            assert spoken or element.label in known


def test_a_forced_state_changes_nothing_else():
    scene = make_scene(random.Random(8), "train", template="settings")
    before = build_screen(scene)
    switch = next(element for element in before.elements if element.kind == "switch")
    after = build_screen(replace(scene, states=((switch.label, not switch.on),)))
    changed = [pair for pair in zip(before.elements, after.elements, strict=True) if pair[0] != pair[1]]
    assert changed == [(switch, replace(switch, on=not switch.on))]


def test_a_label_the_scene_insists_on_is_shown():
    rng = random.Random(9)
    for _ in range(60):
        screen = build_screen(make_scene(rng, "train", template="settings", language="en", must_show=("Bluetooth",)))
        assert isinstance(screen.find("Bluetooth"), Element)


def test_split_seeds_never_meet():
    rng = random.Random(10)
    residues = {split: {make_scene(rng, split).seed % len(SPLITS) for _ in range(20)} for split in SPLITS}
    assert len({frozenset(found) for found in residues.values()}) == len(SPLITS)
    assert all(len(found) == 1 for found in residues.values())


def layout_values(held: str, split: Split) -> set[object]:
    rng = random.Random(11)
    return {getattr(Canvas(make_scene(rng, split)).theme, held) for _ in range(80)}


@pytest.mark.parametrize("held", ["row_height", "margin", "title_style"])
def test_layout_values_of_the_test_split_are_its_own(held: str):
    assert not layout_values(held, "test") & (layout_values(held, "train") | layout_values(held, "validation"))


@pytest.mark.parametrize("held", ["row_height", "margin"])
def test_spacings_of_the_validation_split_are_its_own(held: str):
    assert not layout_values(held, "validation") & layout_values(held, "train")


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split"):
        make_scene(random.Random(0), "dev")  # type: ignore[arg-type]


def test_phone_scale_gives_the_resolution_of_a_phone():
    drawn = render(build_screen(EXAMPLES["settings"]), PHONE_SCALE)
    assert drawn.image.size == (1080, 2376)
    assert np.array_equal(drawn.word_token_ids, render(build_screen(EXAMPLES["settings"])).word_token_ids)


def test_the_settings_example_shows_bluetooth_switched_off():
    bluetooth = build_screen(EXAMPLES["settings"]).find("Bluetooth")
    assert bluetooth is not None
    assert bluetooth.on is False


def test_a_shrunk_screenshot_looks_like_the_direct_drawing():
    screens = (make_screen(random.Random(seed), "train", template="settings") for seed in range(12, 40))
    probe = Image.new("RGB", (1, 1))
    screen = next(screen for screen in screens if disturbed(screen.scene, probe) is probe)
    direct, shrunk = render(screen).image, screenshot(screen).image
    assert shrunk.size == direct.size
    difference = np.abs(np.asarray(direct, dtype=np.int16) - np.asarray(shrunk, dtype=np.int16))
    assert difference.mean() < 8

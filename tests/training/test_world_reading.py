import random
from collections.abc import Iterator

import numpy as np
import pytest

from autoglm_training.world import fonts
from autoglm_training.world.grids import GridPainter
from autoglm_training.world.labels import character_ids, label_ids
from autoglm_training.world.reading import character_vocabulary, label_vocabulary, reading_crop


def test_same_seed_draws_the_same_crop():
    first, second = (reading_crop(random.Random(5), 168, 56) for _ in range(2))
    assert np.array_equal(first.image_HW3, second.image_HW3)
    assert np.array_equal(first.char_patch_ids, second.char_patch_ids)
    assert np.array_equal(first.word_token_ids, second.word_token_ids)


@pytest.mark.parametrize(("width_px", "height_px"), [(112, 56), (168, 56), (280, 112), (280, 616)])
def test_grids_have_a_cell_per_patch_and_per_merged_token(width_px: int, height_px: int):
    sample = reading_crop(random.Random(1), width_px, height_px)
    assert sample.image_HW3.shape == (height_px, width_px, 3)
    assert sample.image_HW3.dtype == np.uint8
    assert sample.char_patch_ids.shape == (height_px // 14, width_px // 14)
    assert sample.word_token_ids.shape == (height_px // 28, width_px // 28)


def test_a_crop_size_off_the_token_grid_is_refused():
    with pytest.raises(ValueError, match="multiples of 28"):
        reading_crop(random.Random(0), 160, 56)


def test_a_hand_placed_glyph_lands_in_its_patch():
    grids = GridPainter(84, 56)
    letters = fonts.font("DejaVuSans.ttf", 14)
    # The ink of "W" at (28, 14) lies in the patches of column 2, rows 1 and 2.
    grids.add_text("W", 28, 14, letters)
    rows, columns = np.nonzero(grids.char_patch_ids())
    assert set(columns) == {2}
    assert set(rows) <= {1, 2}
    assert set(grids.char_patch_ids()[rows, columns]) == {character_ids()["W"]}


def test_a_label_marks_its_merged_tokens_and_other_text_does_not():
    letters = fonts.font("DejaVuSans.ttf", 16)
    label, other = GridPainter(84, 28), GridPainter(84, 28)
    label.add_text("Mail", 2, 4, letters)
    other.add_text("Liam", 2, 4, letters)
    assert label.word_token_ids()[0, 0] == label_ids()["Mail"] + 1
    assert not other.word_token_ids().any()
    assert other.char_patch_ids().any()


def test_the_vocabularies_hold_every_label_and_its_characters_once():
    labels, characters = label_vocabulary(), character_vocabulary()
    assert len(set(labels)) == len(labels)
    assert len(set(characters)) == len(characters)
    assert characters[0] == ""
    assert {c for label in labels for c in label if c != " "} <= set(characters)
    assert all(len(label) <= 8 for label in labels if any(ord(c) > 0x2E7F for c in label))


def test_about_half_of_the_drawn_strings_are_no_labels():
    rng = random.Random(2)
    samples = [reading_crop(rng, 168, 56) for _ in range(300)]
    lettered = sum(
        int((np.kron(s.word_token_ids, np.ones((2, 2), int)) == 0)[s.char_patch_ids > 0].sum()) for s in samples
    )
    total = sum(int((s.char_patch_ids > 0).sum()) for s in samples)
    assert 0.4 < lettered / total < 0.75


@pytest.fixture
def no_fonts(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(fonts, "FONT_ROOTS", (str(tmp_path),))
    fonts.installed_fonts.cache_clear()
    yield
    fonts.installed_fonts.cache_clear()


@pytest.mark.usefixtures("no_fonts")
def test_missing_fonts_name_their_debian_packages():
    with pytest.raises(fonts.MissingFontError, match="fonts-dejavu-core fonts-liberation fonts-wqy-microhei"):
        fonts.installed_fonts()

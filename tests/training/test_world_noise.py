"""Disturbed screenshots."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image

from autoglm_training.world import noise
from autoglm_training.world.elements import Split
from autoglm_training.world.screens import make_screen, render


@pytest.mark.parametrize("disturb", noise.KINDS)
def test_every_kind_changes_the_picture_a_little_and_keeps_its_size(disturb: noise.Disturb) -> None:
    image = render(make_screen(random.Random(1), "train", template="settings"), 2.0).image
    changed = disturb(random.Random(2), image)
    difference = np.abs(np.asarray(changed, dtype=int) - np.asarray(image, dtype=int)).mean()
    assert (changed.size, changed.mode) == (image.size, "RGB")
    assert 0.2 < difference < 100


def test_a_scene_is_always_disturbed_in_the_same_way() -> None:
    screens = [make_screen(random.Random(seed), "train") for seed in range(40)]
    first, second = ([render(screen).image.tobytes() for screen in screens] for _ in range(2))
    assert first == second


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_about_a_quarter_of_the_screens_of_every_split_are_disturbed(split: Split) -> None:
    screens = [make_screen(random.Random(seed), split) for seed in range(200)]
    plain = Image.new("RGB", (8, 8), (90, 120, 150))
    disturbed = sum(noise.disturbed(screen.scene, plain).tobytes() != plain.tobytes() for screen in screens)
    assert 25 <= disturbed <= 75


def test_most_pictures_come_back_as_they_were() -> None:
    plain = Image.new("RGB", (8, 8), (90, 120, 150))
    screens = [make_screen(random.Random(seed), "train") for seed in range(100)]
    assert sum(noise.disturbed(screen.scene, plain) is plain for screen in screens) > 50

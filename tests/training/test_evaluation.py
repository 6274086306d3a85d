"""Grading, episodes through an asker, and the page."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from autoglm_training.config.recipes import RECIPES, TINY_CPU
from autoglm_training.evaluate import main
from autoglm_training.evaluation.episodes import Played, play
from autoglm_training.evaluation.grading import Graded, agreement_rows, grade, group_rows
from autoglm_training.evaluation.held_out import Sample
from autoglm_training.evaluation.quality_page import BEGIN, END, write_page
from autoglm_training.samples import Row
from autoglm_training.train_command import STAGES, changed
from autoglm_training.world.episodes import make_episode
from autoglm_training.world.tasks import Task, tap
from autoglm_training.world.wire import Message

HOME = '<think>Go.</think><answer>do(action="Home")'


def task(action: str, box: tuple[int, int, int, int] | None = None) -> Task:
    return Task(
        family="tap_label" if box else "home",
        language="en",
        instruction="x",
        think="Go.",
        action=action,
        target_box=box,
        speakable=True,
        app="Maps",
    )


@pytest.mark.parametrize(
    ("reply", "graded"),
    [
        (HOME, (True, True)),
        ('<think>Go.</think><answer>do(action="Back")', (True, False)),
        ('do(action="Home")', (False, False)),
        ('<think>Go.</think><answer>do(action="Home"', (False, False)),
    ],
)
def test_an_answer_is_valid_and_right(reply: str, graded: tuple[bool, bool]) -> None:
    assert grade(task('do(action="Home")'), reply) == graded


@pytest.mark.parametrize(("point", "right"), [((150, 150), True), ((100, 200), True), ((99, 150), False)])
def test_a_tap_must_fall_inside_the_box(point: tuple[int, int], right: bool) -> None:
    wanted = task(tap((150, 150)), (100, 100, 200, 200))
    assert grade(wanted, f"<think>Go.</think><answer>{tap(point)}") == (True, right)


def graded(depth: int, reply: str, sample: Sample) -> Graded:
    valid, right = grade(sample.task, reply)
    return Graded(sample=sample, depth=depth, reply=reply, valid=valid, right=right, chance=None)


def some_figures() -> dict[str, Any]:
    sample = Sample(task=task('do(action="Home")'), modality="text", row=Row(), media=())
    items = [graded(6, HOME.replace("Home", "Back"), sample), graded(24, HOME, sample)]
    return {"seed": 1, "samples": 1, "rows": group_rows(items), "agreement": agreement_rows(items, 24)}


def test_agreement_is_with_full_depth() -> None:
    rows = [row for row in some_figures()["agreement"] if row["modality"] == "text"]
    assert [(row["depth"], row["agree"]) for row in rows] == [(6, 0.0), (24, 1.0)]


def test_the_page_keeps_what_people_wrote(tmp_path: Path) -> None:
    page = tmp_path / "quality.md"
    page.write_text(f"# Title\n\nby hand\n\n{BEGIN}\nold\n{END}\n\nlimits\n", encoding="utf-8")
    write_page(page, some_figures(), (6, 24), "toy")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Title\n\nby hand\n")
    assert text.endswith("\n\nlimits\n")
    assert "old" not in text
    assert "| text commands | 98 % | 100.0 % | 1 |" in text
    with Image.open(tmp_path / "quality.png") as picture:
        assert picture.width > 800


def played(answers: Sequence[str], kind: str) -> Played:
    episode = make_episode(random.Random(4), "test", kind=kind)
    given = iter(answers or [step.task.reply for step in episode.steps])

    def ask(messages: Sequence[Message], picture: Image.Image) -> str:
        assert messages[0][0] == "system"
        assert picture.width == 1080
        return next(given)

    return play(episode, ask, random.Random(1))


def test_an_episode_played_right_succeeds() -> None:
    outcome = played([], "toggle")
    assert outcome.success
    assert outcome.right_steps == outcome.turns == len(outcome.episode.steps)


def test_an_episode_ends_after_too_many_mistakes() -> None:
    outcome = played(["garbled"] * 9, "toggle")
    assert not outcome.success
    assert outcome.turns < 9


def test_the_command_line_changes_only_what_was_named() -> None:
    recipe = changed(TINY_CPU, STAGES["joint"], 7, {"layer_dropout": 0.2})
    assert recipe.joint.steps == 7
    assert recipe.joint.objective.layer_dropout == 0.2
    assert recipe.joint.peak_lr == TINY_CPU.joint.peak_lr
    assert recipe.text == TINY_CPU.text


def test_the_command_line_sets_the_highest_learning_rate() -> None:
    assert changed(TINY_CPU, STAGES["joint"], None, {}, 3e-4).joint.peak_lr == 3e-4


def test_every_recipe_has_every_stage() -> None:
    for recipe in RECIPES.values():
        assert {getattr(recipe, stage).steps > 0 for stage in STAGES["all"]} == {True}


def test_figures_stay_where_a_later_part_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"
    common = ["--threads", "1", "--figures", str(figures)]

    assert main([*common, "--samples", "2", "--modalities", "text", "--depths", "6", "24"]) == 0
    assert main([*common, "--samples", "0", "--episodes", "1", "--url", "http://127.0.0.1:9"]) == 1

    kept = json.loads(figures.read_text())
    assert (kept["samples"], {row["depth"] for row in kept["rows"]}) == (2, {6, 24})
    assert "Connection refused" in capsys.readouterr().err

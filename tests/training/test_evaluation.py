"""Grading, figures by group, the command and the page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.tiny_checkpoint import write_checkpoint

from autoglm_training.config.recipes import RECIPES, TINY_CPU
from autoglm_training.evaluate import main
from autoglm_training.evaluation.by_family import BY_FAMILY
from autoglm_training.evaluation.figures import Figures
from autoglm_training.evaluation.grading import RELATIONS, Graded, agreement_rows, grade, group_rows
from autoglm_training.evaluation.held_out import Clip, Sample
from autoglm_training.evaluation.quality_page import BEGIN, END, write_page
from autoglm_training.evaluation.shares import Share
from autoglm_training.samples import Row
from autoglm_training.train_command import STAGES, changed
from autoglm_training.world.tasks import Task, tap

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
        ("<think>Go.</think><answer>do(foo=1)", (False, False)),
        ('<think>Go.</think><answer>do(action="Tap")', (False, False)),
        ('<think>Go.</think><answer>do(action="Fly")', (False, False)),
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


def sample_of(modality: str, family: str = "home", clip: Clip | None = None) -> Sample:
    wanted = replace(task('do(action="Home")'), family=family)
    return Sample(task=wanted, modality=modality, row=Row(), media=(), clip=clip)


def some_figures() -> dict[str, Any]:
    sample = sample_of("text")
    items = [graded(6, HOME.replace("Home", "Back"), sample), graded(24, HOME, sample)]
    return {
        "checkpoint": "toy",
        "checkpoint_sha256": "0123456789abcdef" * 4,
        "made": {"rows": {"command": "autoglm evaluate --samples 1 --seed 7", "commit": "abc1234"}},
        "seed": 7,
        "samples": 1,
        "per_family": 20,
        "rows": group_rows(items),
        "agreement": agreement_rows(items, 24),
    }


def families_of(sample: Sample) -> set[object]:
    return {row["family"] for row in group_rows([graded(24, HOME, sample)])}


def test_agreement_is_with_full_depth() -> None:
    rows = [row for row in some_figures()["agreement"] if row["modality"] == "text"]
    assert [(row["depth"], row["agree"]) for row in rows] == [(6, 0.0), (24, 1.0)]


def test_without_full_depth_there_is_no_agreement() -> None:
    assert agreement_rows([graded(6, HOME, sample_of("text"))], 24) == []


def test_tasks_by_family_count_in_no_total_but_the_relational_one() -> None:
    assert families_of(sample_of(BY_FAMILY, "neighbours")) == {"neighbours", RELATIONS}
    assert families_of(sample_of(BY_FAMILY, "positions")) == {"positions"}
    rows = agreement_rows([graded(24, HOME, sample_of(BY_FAMILY, "positions"))], 24)
    assert [row["modality"] for row in rows] == [BY_FAMILY]


def test_spoken_answers_are_counted_by_noise() -> None:
    assert {"all, noisy", "direct commands, noisy"} < families_of(sample_of("speech", clip="noisy"))
    assert not any("noisy" in str(family) for family in families_of(sample_of("speech", clip="quiet")))


@pytest.mark.parametrize(
    ("share", "low", "high"),
    [(Share(0, 10), 0.0, 0.2775), (Share(50, 100), 0.4038, 0.5962), (Share(10, 10), 0.7225, 1.0)],
)
def test_intervals_are_wilson_s(share: Share, low: float, high: float) -> None:
    assert share.interval == pytest.approx((low, high), abs=1e-4)


def page_of(figures: dict[str, Any], tmp_path: Path) -> str:
    write_page(tmp_path / "quality.md", figures)
    return (tmp_path / "quality.md").read_text(encoding="utf-8")


def test_the_page_keeps_what_people_wrote(tmp_path: Path) -> None:
    page = tmp_path / "quality.md"
    page.write_text(f"# Title\n\nby hand\n\n{BEGIN}\nold\n{END}\n\nlimits\n", encoding="utf-8")
    text = page_of(some_figures(), tmp_path)
    assert text.startswith("# Title\n\nby hand\n")
    assert text.endswith("\n\nlimits\n")
    assert "old" not in text
    with Image.open(tmp_path / "quality.png") as picture:
        assert picture.width > 800


def test_the_page_shows_aims_with_their_doubt(tmp_path: Path) -> None:
    text = page_of(some_figures(), tmp_path)
    assert "| text commands (launch, back, home, type, swipe, wait, finish, identity) | 98 % | 100.0 % | 20.7" in text
    assert "finish, identity), depth 6 | 95 % | 0.0 % | 0.0 to 79.3 % | 1 |" in text
    assert "| relational and chart tasks | 70 % | not measured | | 0 |" in text


def test_the_page_says_of_which_checkpoint_and_how_it_was_made(tmp_path: Path) -> None:
    text = page_of(some_figures(), tmp_path)
    assert "`toy`, SHA-256 `0123456789abcdef`" in text
    assert "autoglm evaluate --samples 1 --seed 7  # rows, code at abc1234" in text
    assert "This page's seed is 7" in text
    assert "shows seed 1 again" in page_of({**some_figures(), "seed": 1}, tmp_path)


def test_the_page_shows_certified_exits_and_the_router_unrounded_to_their_good(tmp_path: Path) -> None:
    router = {"depth": 6, "delta": 0.02, "n": 400, "routed": 100, "mismatches": 3}
    router |= {"calibrated_share": 0.25, "calibrated_n": 650, "calibrated_mismatches": 2}
    certified = {"n": 400, "tokens": 1400, "mismatches": 1, "delta": 0.01, "epsilon": 0.05, "num_layers": 24}
    certified |= {"mean_layers": 8.31, "layer_steps": 90, "layer_steps_full": 100, "router": router}
    certified |= {"answer_layer_steps": 22_010, "answer_layer_steps_full": 24_000}
    text = page_of({**some_figures(), "certified": certified}, tmp_path)
    assert "(the certificate says 1.0 %, 5.0 % error) | at most 2 %, with 5 % error | 0.3 % (1 of 400)" in text
    assert "| certified exits: layer at which a token is chosen | at most 14.4 | 8.4 |" in text
    assert "| certified exits: layers run a token, later ones too | | 22.1 |" in text
    assert "90 instead of 100, 10.0 % fewer" in text
    assert "it sent 100 of 400 whole requests (25.0 %) to depth 6" in text


def test_the_page_shows_hearing_and_episodes_by_kind(tmp_path: Path) -> None:
    heard = [{"language": "en", "clip": "noisy", "clips": 40, "rate": 0.512}]
    row = {"n": 4, "success": 0.25, "turns": 10, "right_turns": 0.6}
    figures = {**some_figures(), "word_errors": heard, "episodes": {"by_kind": {"all": row, "toggle": row}}}
    text = page_of(figures, tmp_path)
    assert "| en | noisy | 40 | 51.2 % |" in text
    assert "| toggle | 4 | 25.0 % | 60.0 % | 10 |" in text
    assert "counted | 80 % | 25.0 % | 4.6 to 69.9 % | 4 |" in text


def test_the_command_line_changes_only_what_was_named() -> None:
    recipe = changed(TINY_CPU, STAGES["joint"], {"steps": 7}, {"layer_dropout": 0.2})
    assert recipe.joint.steps == 7
    assert recipe.joint.objective.layer_dropout == 0.2
    assert recipe.joint.peak_lr == TINY_CPU.joint.peak_lr
    assert recipe.text == TINY_CPU.text


def test_the_command_line_sets_the_highest_learning_rate() -> None:
    assert changed(TINY_CPU, STAGES["joint"], {"peak_lr": 3e-4}, {}).joint.peak_lr == 3e-4


def test_depth_weights_are_for_decoder_stages_alone() -> None:
    weights = {"depth_weights": (1.0, 0.0, 0.0, 0.0)}
    assert changed(TINY_CPU, STAGES["all"], weights, {}).joint.depth_weights == (1.0, 0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="--depth-weights: only for the stages text and joint, not crops"):
        changed(TINY_CPU, STAGES["crops"], weights, {})


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
    assert kept["made"]["rows"]["command"].endswith(
        "--samples 2 --per-family 20 --modalities text --depths 6 24 --seed 1"
    )
    assert "http://127.0.0.1:9: <urlopen error [Errno 111] Connection refused>" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--depths", "5", "24", "99"],
            "--depths 5 99: no exit of checkpoints/autoglm-phone-tiny",
        ),
        (["--depths", "6", "--page", "{tmp}/quality.md"], "--page needs full depth, --depths leaves out 24"),
        (["--samples", "0", "--figures", "{tmp}/no.json", "--page", "{tmp}/quality.md"], "no.json has no rows"),
        (["--figures", "{tmp}/broken.json"], "broken.json: not valid JSON"),
    ],
    ids=["unknown depths", "page without full depth", "page without rows", "broken figures"],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.json").write_text('{"rows": [')
    assert main(["--threads", "1", *(option.replace("{tmp}", str(tmp_path)) for option in options)]) == 1
    assert said in capsys.readouterr().err


def test_a_negative_count_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--samples", "-3"])
    assert "--samples: '-3' is not a whole number from 0" in capsys.readouterr().err


def test_figures_of_another_checkpoint_are_dropped(tmp_path: Path) -> None:
    checkpoint, path = write_checkpoint(tmp_path / "one"), tmp_path / "figures.json"
    Figures.open(checkpoint, path).keep("episodes", "autoglm evaluate", episodes={"by_kind": {}})
    assert "episodes" in Figures.open(checkpoint, path).values
    said: list[str] = []
    other = Figures.open(write_checkpoint(tmp_path / "two", seed=6), path, said.append)
    assert "episodes" not in other.values
    assert said == [f"{path}: its figures are of another checkpoint and are dropped"]


def test_certified_figures_of_another_certificate_are_dropped(tmp_path: Path) -> None:
    checkpoint, path = write_checkpoint(tmp_path / "one"), tmp_path / "figures.json"
    figures = Figures.open(checkpoint, path)
    figures.keep("certified", "autoglm evaluate", certified={"thresholds": {"6": 0.99}})
    figures.keep("word_errors", "autoglm evaluate", word_errors=[])
    said: list[str] = []
    values = Figures.open(checkpoint, path, said.append).values
    assert (set(values["made"]), "certified" in values) == ({"word_errors"}, False)
    assert said == [f"{path}: its certified figures are of another certificate and are dropped"]

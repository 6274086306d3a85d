"""`autoglm train`: what it refuses in one sentence before any work, and what it writes down about a run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autoglm_training import train_command
from autoglm_training.config.recipes import TINY_CPU, TINY_GPU, CropStage
from autoglm_training.history import read
from autoglm_training.train_command import STAGES, main

TOKENIZER = Path("checkpoints/autoglm-phone-tiny/tokenizer.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run that has its tokenizer."""
    shutil.copy(TOKENIZER, tmp_path / "tokenizer.json")
    return tmp_path


@pytest.fixture
def small_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    crops = CropStage(steps=2, peak_lr=1e-3, final_lr=1e-4, batch_tokens=8, sizes_px=((112, 56),))
    monkeypatch.setitem(train_command.RECIPES, "tiny-cpu", replace(TINY_CPU, crops=crops))


def train(folder: Path, *options: str) -> int:
    return main(["--run-dir", str(folder), "--speech-dir", str(folder / "speech"), "--threads", "1", *options])


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    told = capsys.readouterr().err
    assert told.startswith("autoglm train: ")
    assert told.count("\n") == 1
    return told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--stage", "text", "--teacher", "x"], "--teacher changes nothing while beta is 0"),
        (["--stage", "crops", "--teacher", "x"], "--teacher changes nothing while beta is 0"),
        (["--stage", "text", "--beta", "0.5"], "give --teacher too"),
        (["--stage", "crops", "--beta", "0.5"], "--beta: only for the stages text and joint, not crops"),
        (["--stage", "speech", "--rounds-weights"], "--rounds-weights: only for the stages text and joint"),
        (["--stage", "crops", "--depth-weights", "1,0,0,0"], "--depth-weights: only for the stages text and joint"),
        (["--stage", "text", "--alpha", "-1"], "alpha is -1.0, must not be negative"),
        (["--stage", "text", "--device", "nonsense"], "--device nonsense cannot be used here"),
        (["--stage", "joint"], "heard-train.jsonl does not exist: run --stage speech first, or train --without-speech"),
        (["--stage", "speech", "--without-speech"], "--without-speech leaves nothing of --stage speech"),
        (["--stage", "joint", "--without-speech"], "vision_screens.pt"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    assert train(folder, *options) == 1
    assert told in refusal(capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_the_gpu_recipe_without_a_gpu_is_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(folder, "--recipe", "tiny-gpu", "--stage", "text") == 1
    assert "--device cuda cannot be used here" in refusal(capsys)


@pytest.mark.parametrize(
    "option", [("--steps", "0"), ("--steps", "-3"), ("--threads", "0"), ("--workers", "x"), ("--peak-lr", "nan")]
)
def test_counts_below_one_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], option: tuple[str, str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        train(folder, *option)
    assert ended.value.code == 2
    assert f"argument {option[0]}: '{option[1]}' must be" in capsys.readouterr().err


def test_a_finished_stage_is_refused_before_any_step(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also one that comes late: hours of the stages before it would be lost."""
    (folder / "decoder.pt").write_bytes(b"hours of work")
    assert train(folder, "--stage", "decoder", "--without-speech") == 1
    told = refusal(capsys)
    assert "--resume" in told
    assert "--restart" in told
    assert (folder / "decoder.pt").read_bytes() == b"hours of work"
    assert not (folder / "decoder_text.pt").exists()


def test_resume_and_restart_are_not_one(folder: Path) -> None:
    with pytest.raises(SystemExit):
        train(folder, "--resume", "--restart")


def test_a_state_that_was_cut_short_is_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "decoder_text.pt").write_bytes(b"PK\x03\x04 cut short")
    assert train(folder, "--stage", "text", "--resume") == 1
    assert "decoder_text.pt is damaged" in refusal(capsys)


def test_missing_espeak_is_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(folder))
    assert train(folder, "--stage", "speech") == 1
    assert "apt-get install espeak-ng" in refusal(capsys)


@pytest.mark.usefixtures("small_crops")
def test_every_call_that_trained_is_written_down(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(folder, "--stage", "crops", "--steps", "1", "--seed", "7") == 0
    assert train(folder, "--stage", "crops", "--resume") == 0
    assert train(folder, "--stage", "crops") == 1
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["stages"] for line in lines] == [
        [{"stage": "crops", "first": 0, "last": 1}],
        [{"stage": "crops", "first": 1, "last": 2}],
    ]
    assert [line["seed"] for line in lines] == [7, TINY_CPU.seed]
    assert lines[0]["recipe"]["crops"]["steps"] == 1
    assert lines[0]["ended"] == "finished"
    assert lines[0]["argv"][-2:] == ["--seed", "7"]


@pytest.mark.usefixtures("small_crops")
def test_a_call_that_failed_is_written_down_with_its_reason(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("autoglm_training.loop.save_training", full)
    assert train(folder, "--stage", "crops") == 1
    line = json.loads((folder / "history.jsonl").read_text(encoding="utf-8"))
    assert line["ended"] == "OSError: the disk is full"


FULL_DISK = """
import resource, sys
from autoglm_training.train_command import main
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
raise SystemExit(main(sys.argv[1:]))
"""


def test_a_full_disk_ends_in_one_sentence_and_keeps_the_last_state(folder: Path) -> None:
    (folder / "decoder_text.pt").write_bytes(b"the last good state")
    command = [sys.executable, "-c", FULL_DISK, "--stage", "text", "--restart", "--steps", "1", "--threads", "1"]
    done = subprocess.run(
        [*command, "--run-dir", str(folder)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"autoglm train: {folder / 'decoder_text.pt'} was not written and is as before: ")
    assert done.stderr.count("\n") == 1
    assert (folder / "decoder_text.pt").read_bytes() == b"the last good state"


def test_a_record_is_read_back_from_all_calls(tmp_path: Path) -> None:
    calls = [
        {"argv": ["--stage", "text"], "commit": "abc", "seed": 1, "wall_s": 1800, "stages": [("text", 0, 5)]},
        {"argv": ["--resume"], "commit": "abc", "seed": 2, "wall_s": 3600, "stages": [("text", 5, 9), ("joint", 0, 2)]},
        {"argv": ["--resume"], "commit": "def", "seed": 3, "wall_s": 7200, "stages": [("text", 9, 9)]},
    ]
    with (tmp_path / "history.jsonl").open("w", encoding="utf-8") as file:
        for call in calls:
            stages = [{"stage": name, "first": first, "last": last} for name, first, last in call["stages"]]  # type: ignore[misc]
            file.write(json.dumps({**call, "stages": stages}) + "\n")
    record = read(tmp_path)
    assert record is not None
    assert record.commands == ("autoglm train --stage text", "autoglm train --resume")
    assert (record.commits, record.seeds, record.hours) == (("abc",), (1, 2), 1.5)
    assert record.stages == ("text 0 to 5", "text 5 to 9", "joint 0 to 2")


def test_a_damaged_history_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text("{}x\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"history\.jsonl, line 1"):
        read(tmp_path)


def test_speech_is_part_of_everything_before_the_stage_that_listens() -> None:
    order = STAGES["all"]
    assert order.index("ctc") < order.index("tokens") < order.index("joint")
    for recipe in (TINY_CPU, TINY_GPU):
        assert recipe.ctc.steps > 0 < recipe.tokens.steps

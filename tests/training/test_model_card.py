"""The checkpoint's card: commands, seeds and hours are those of the run's history, or what was typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoglm_training.model_card import main

FIGURES = {"rows": [], "made": {"rows": {"command": "autoglm evaluate --samples 3 --seed 2"}}}
CALL = {"argv": ["--stage", "text"], "commit": "abc", "seed": 9, "wall_s": 5400}
CALL |= {"stages": [{"stage": "text", "first": 0, "last": 5}]}


def card(folder: Path, *options: str) -> int:
    figures = folder / "figures.json"
    figures.write_text(json.dumps(FIGURES), encoding="utf-8")
    return main(["--checkpoint", str(folder), "--figures", str(figures), "--machine", "a laptop", *options])


def test_the_card_tells_the_history(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text(json.dumps(CALL) + "\n", encoding="utf-8")
    assert card(tmp_path, "--run-dir", str(tmp_path)) == 0
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "Again: `autoglm evaluate --samples 3 --seed 2`" in text
    for line in ("| command | `autoglm train --stage text` |", "| commit | abc |", "| seed | 9 |", "1.5 h on a laptop"):
        assert line in text


def test_what_is_typed_counts_instead_of_the_history(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text(json.dumps(CALL) + "\n", encoding="utf-8")
    assert card(tmp_path, "--run-dir", str(tmp_path), "--hours", "7.5", "--commit", "def") == 0
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "7.5 h on a laptop" in text
    assert "| commit | def |" in text


def test_a_card_without_a_history_names_what_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert card(tmp_path, "--run-dir", str(tmp_path), "--command", "x", "--seed", "1") == 1
    assert "so --commit, --hours, --stages must be given" in capsys.readouterr().err
    assert not (tmp_path / "README.md").exists()

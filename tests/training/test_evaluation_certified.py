"""Certified exits and router over held-out traffic, through the engine itself."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from autoglm_backend.models.certificate import Certificate, checkpoint_sha256
from autoglm_backend.models.config import CheckpointError
from autoglm_training.evaluate import main
from autoglm_training.evaluation.certified import certified_figures, checked_certificate
from autoglm_training.exits.files import save_certificate
from autoglm_training.loading import load_checkpoint

TINY = Path("checkpoints/autoglm-phone-tiny")
needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
NEVER, ALWAYS = {6: 2.0, 12: 2.0, 18: 2.0}, {6: 0.0}
COUNT = 36
"""More than the engine's batch holds."""


def certified(directory: Path, thresholds: Mapping[int, float], **changes: Any) -> Path:
    """The default checkpoint's files with a certificate of these thresholds."""
    shutil.copytree(TINY, directory)
    fields: dict[str, Any] = {
        "risk": "a test's",
        "delta": 0.02,
        "epsilon": 0.05,
        "num_requests": 200,
        "num_mismatches": 0,
        "max_tokens": 64,
        "dtype": "float32",
        "quantization": "none",
        "checkpoint_sha256": checkpoint_sha256(directory),
        "thresholds": thresholds,
        "mean_layers": 24.0,
    }
    save_certificate(directory, Certificate(**{**fields, **changes}))
    return directory


@needs_espeak
def test_closed_exits_run_what_full_depth_runs(tmp_path: Path) -> None:
    figures: Any = certified_figures(load_checkpoint(certified(tmp_path / "c", NEVER)), COUNT, 5)
    assert (figures["n"], figures["mismatches"], figures["mean_layers"]) == (COUNT, 0, 24.0)
    assert figures["layer_steps"] == figures["layer_steps_full"]
    assert figures["answer_layer_steps"] == 24 * (figures["tokens"] - COUNT)


@needs_espeak
def test_open_exits_choose_early_and_run_most_layers_later(tmp_path: Path) -> None:
    figures: Any = certified_figures(load_checkpoint(certified(tmp_path / "c", ALWAYS)), 8, 5)
    # The first token of an answer is full depth's.
    assert figures["mean_layers"] == pytest.approx((8 * 24 + (figures["tokens"] - 8) * 6) / figures["tokens"], abs=1e-3)
    least = 6 * (figures["tokens"] - 8)
    assert least < figures["answer_layer_steps"] < figures["answer_layer_steps_full"]
    assert figures["mismatches"] > 0
    assert figures["thresholds"] == {"6": 0.0}


@needs_espeak
def test_the_router_s_choices_are_counted(tmp_path: Path) -> None:
    figures: Any = certified_figures(load_checkpoint(certified(tmp_path / "c", NEVER)), 12, 6)
    assert 0 <= figures["router"]["mismatches"] <= figures["router"]["routed"] <= 12
    assert figures["router"]["depth"] == 6


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"dtype": "bfloat16"}, "dtype was bfloat16"),
        ({"quantization": "int8"}, "quantization was int8"),
        ({"checkpoint_sha256": "0" * 64}, "checkpoint_sha256 is of other"),
    ],
)
def test_a_certificate_that_a_server_refuses_is_not_reported(
    tmp_path: Path, changes: dict[str, str], named: str
) -> None:
    with pytest.raises(CheckpointError, match=named):
        checked_certificate(load_checkpoint(certified(tmp_path / "c", NEVER, **changes)))


def test_traffic_without_a_certificate_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = certified(tmp_path / "c", NEVER)
    (directory / "exits" / "certificate.json").unlink()
    assert main(["--checkpoint", str(directory), "--traffic", "8"]) == 1
    out, err = capsys.readouterr()
    assert err == f"autoglm evaluate: {directory}: no certificate (`autoglm calibrate` makes one)\n"
    assert out == ""

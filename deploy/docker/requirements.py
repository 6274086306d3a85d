"""Prints what an extra of pyproject.toml installs, a requirement a line, with what builds this checkout itself.

usage: requirements.py EXTRA[,EXTRA...] [PYPROJECT]

Images install it in a layer of its own, which a change of the code leaves alone.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import tomllib  # an image's Python is 3.11 or newer


def requirements(project: dict[str, Any], extras: list[str]) -> list[str]:
    """Sorted, each once; extras of the project's own are followed. Raises KeyError for an extra that there is not."""
    name, optional = project["project"]["name"], project["project"]["optional-dependencies"]
    found = {*project["build-system"]["requires"], *project["project"]["dependencies"]}
    for extra in extras:
        for requirement in optional[extra]:
            inner = re.fullmatch(rf"{re.escape(name)}\[([^\]]+)\]", requirement)
            if inner:
                found.update(requirements(project, inner[1].split(",")))
            else:
                found.add(requirement)
    return sorted(found)


def main(arguments: list[str]) -> int:
    """Exit status: 2 for wrong usage."""
    if not 1 <= len(arguments) <= 2:
        print(__doc__, file=sys.stderr)
        return 2
    pyproject = Path(arguments[1] if len(arguments) == 2 else "pyproject.toml")
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    extras = arguments[0].split(",")
    if absent := [extra for extra in extras if extra not in project["project"]["optional-dependencies"]]:
        print(f"requirements.py: {pyproject} has no extra {', '.join(absent)}", file=sys.stderr)
        return 2
    print("\n".join(requirements(project, extras)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

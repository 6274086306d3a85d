"""The examples as they render, kept in goldens/ so that a change of any object is seen.

`python -m tests.helm.goldens` writes them anew.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml
from tests.helm.chart import EXAMPLES, render

FOLDER = Path(__file__).with_name("goldens")


def golden(example: str) -> str:
    """All objects by kind and name; whole files inside ConfigMaps stand as their hashes."""
    objects = sorted(render(EXAMPLES[example]), key=lambda o: (o["kind"], o["metadata"]["name"]))
    return yaml.safe_dump_all([_short(o) for o in objects], sort_keys=True, width=120)


def _short(o: dict[str, Any]) -> dict[str, Any]:
    if o["kind"] != "ConfigMap":
        return o
    return o | {"data": {name: _hash(text) if len(text) > 400 else text for name, text in o["data"].items()}}


def _hash(text: str) -> str:
    return f"sha256 {hashlib.sha256(text.encode()).hexdigest()}"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for example in EXAMPLES:
        (FOLDER / f"{example}.yaml").write_text(golden(example), encoding="utf-8")

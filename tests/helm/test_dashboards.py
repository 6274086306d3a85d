from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from tests.helm.chart import FOLDER, ROOT, of_kind, render
from tests.helm.variants import VARIANTS

_FILES = sorted((FOLDER / "dashboards").glob("*.json"))
every_dashboard = pytest.mark.parametrize("path", _FILES, ids=lambda path: path.stem)


def _panels(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in document["panels"] if panel["type"] != "row"]


@every_dashboard
def test_panels_do_not_overlap_or_leave_the_page(path):
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(path.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


@every_dashboard
def test_every_panel_asks_for_one_release(path):
    for panel in _panels(json.loads(path.read_text())):
        for target in panel["targets"]:
            assert target["legendFormat"]
            assert "$release" in target["expr"], panel["title"]


@every_dashboard
def test_ids_are_unique(path):
    ids = [panel["id"] for panel in json.loads(path.read_text())["panels"]]

    assert len(ids) == len(set(ids))


def test_the_files_are_what_their_source_says(tmp_path):
    subprocess.run([sys.executable, ROOT / "deploy/dashboards/make.py", tmp_path], check=True, capture_output=True)

    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {p.name: p.read_text() for p in _FILES}


def test_grafanas_sidecar_finds_each():
    maps = of_kind(render(VARIANTS["all options"]), "ConfigMap")
    dashboards = [o for o in maps if o["metadata"]["labels"].get("grafana_dashboard") == "1"]
    shipped = {name: json.loads(text) for o in dashboards for name, text in o["data"].items()}

    assert shipped == {f"autoglm-{p.name}": json.loads(p.read_text()) for p in _FILES}

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from tests.cluster.programs import BIN
from tests.helm.chart import FOLDER, NAMESPACE, RELEASE, render
from tests.helm.variants import VARIANTS

_INFO = 1
KUBERNETES = "1.35.0"  # a `helm` that was built without its release flags takes itself for 1.20


@pytest.mark.parametrize("name", VARIANTS)
def test_lint_has_nothing_to_say(name: str):
    report = helm_python.lint(FOLDER, VARIANTS[name], strict=True, namespace=NAMESPACE, kube_version=KUBERNETES)

    assert [m for m in report["messages"] if m["severity"] > _INFO] == []


def _programs() -> dict[str, Path]:
    found = [shutil.which("helm"), *(BIN / name for name in ("helm", "helm4"))]
    usable = [Path(path) for path in found if path is not None and os.access(path, os.X_OK)]
    return {
        subprocess.run([path, "version", "--template", "{{.Version}}"], capture_output=True, text=True).stdout: path
        for path in usable
    }


@pytest.mark.parametrize("name", ["defaults", "example 8x-h100", "routes"])
def test_the_helm_programs_render_what_the_library_renders(name: str, tmp_path: Path):
    programs = _programs()
    if not programs:
        pytest.skip(f"no helm on PATH or in {BIN} (tests/cluster/build_programs.sh builds both versions)")
    values = tmp_path / "values.yaml"
    values.write_text(json.dumps(VARIANTS[name]))
    command = ("template", RELEASE, FOLDER, "-n", NAMESPACE, "-f", values, "--kube-version", KUBERNETES)

    for program in programs.values():
        output = subprocess.run([program, *command], capture_output=True, text=True, check=True).stdout
        objects = [o for o in yaml.safe_load_all(output) if o is not None]

        assert _by_name(objects) == _by_name(render(VARIANTS[name]))


def _by_name(objects: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(o["kind"], o["metadata"]["name"]): o for o in objects}

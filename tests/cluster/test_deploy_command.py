"""`autoglm deploy` on a real API server, by the helm program (3 and 4) and by Helm as a library."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.control_plane import ControlPlane
from tests.cluster.helm import VERSIONS
from tests.cluster.programs import BIN
from tests.cluster.values import release_values

from autoglm_client.deploy.command import main

Deploy = Callable[..., int]


@pytest.fixture
def deploy(plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Deploy:
    """`autoglm deploy VERB` in a namespace of its own; no helm is on PATH."""
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")

    def run(verb: str, *words: str) -> int:
        return main([verb, "-n", namespace, *words])

    return run


@pytest.fixture(params=[*VERSIONS.values(), "library"])
def any_helm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if request.param != "library":
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "helm").symlink_to(BIN / request.param)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def values_file(folder: Path, pool: str, **options: Any) -> str:
    path = folder / "values.json"  # JSON is YAML
    path.write_text(json.dumps(release_values(pool, **options)))
    return str(path)


def test_a_release_lives_from_install_to_uninstall(
    deploy: Deploy, any_helm: None, pool: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    values = values_file(tmp_path, pool)

    assert deploy("install", "-f", values) == 0
    assert deploy("status") == 0
    assert "2 of 2 available" in capsys.readouterr().out
    assert deploy("upgrade", "--set", "triton.replicas=3") == 0
    assert deploy("status", "--json") == 0
    out = capsys.readouterr().out
    assert json.loads(out[out.index("\n{") :])["deployments"]["phone-autoglm-phone-triton"] == "3 of 3 available"
    assert deploy("rollback") == 0
    assert "back to revision 1, as revision 3" in capsys.readouterr().out
    assert deploy("history") == 0
    assert deploy("uninstall", "--yes") == 0
    assert deploy("status") == 1
    assert "there is no release phone" in capsys.readouterr().err


def test_preflight_sees_that_the_gpus_do_not_suffice(
    deploy: Deploy, pool: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    values = values_file(tmp_path, pool, replicas=17)

    assert deploy("install", "-f", values) == 1

    shown = capsys.readouterr()
    assert "16 of 17 pods" in shown.out
    assert "nothing was changed" in shown.err


def test_an_upgrade_that_does_not_come_up_is_undone(
    deploy: Deploy, pool: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert deploy("install", "-f", values_file(tmp_path, pool)) == 0
    nowhere = ("--set", "triton.gpu.products={A100}", "--skip-preflight", "--timeout", "4")

    assert deploy("upgrade", *nowhere, "--rollback-on-failure") == 1

    shown = capsys.readouterr()
    assert "waits for a node: 0/" in shown.out
    assert "back to revision 1, as revision 3" in shown.out
    assert "That has been undone." in shown.err
    assert deploy("status") == 0

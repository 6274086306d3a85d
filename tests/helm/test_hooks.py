"""`helm test`: its scripts, run as the pods run them, against a real gateway."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.gateway.processes import Gateway
from tests.helm.chart import FOLDER, Object, of_kind, one, render
from tests.helm.variants import VARIANTS

_TESTS = ("chat", "stream", "screenshot")


@pytest.mark.parametrize("name", _TESTS)
def test_a_working_gateway_passes(name: str, fake_gateway: Gateway, tmp_path: Path):
    run = _run(name, fake_gateway.http, tmp_path)

    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(f"{name}:")


@pytest.mark.parametrize("name", _TESTS)
def test_a_gateway_without_triton_fails(name: str, lonely_gateway: Gateway, tmp_path: Path):
    run = _run(name, lonely_gateway.http, tmp_path)

    assert run.returncode != 0
    assert "503" in run.stderr


def test_each_script_has_its_pod():
    pods = of_kind(render(), "Pod")

    assert [pod["spec"]["containers"][0]["command"] for pod in pods] == [["python", f"/tests/{n}.py"] for n in _TESTS]
    assert all(pod["metadata"]["annotations"]["helm.sh/hook"] == "test" for pod in pods)


def test_only_pods_are_test_hooks():
    """`helm test --logs` fails on any other object: it asks for the logs of each."""
    hooks = [o for o in render() if o["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"]

    assert {o["kind"] for o in hooks} == {"Pod"}


def test_the_key_comes_from_a_secret():
    for pod in of_kind(render(VARIANTS["tls and keys"]), "Pod"):
        environment = {e["name"]: e for e in pod["spec"]["containers"][0]["env"]}
        assert environment["AUTOGLM_API_KEY"]["valueFrom"] == {"secretKeyRef": {"name": "test-key", "key": "api-key"}}
        assert environment["AUTOGLM_URL"]["value"].startswith("https://")


def _run(name: str, address: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The pod's own script out of the rendered ConfigMap, with the pod's own variables and the gateway's address."""
    objects = render()
    scripts = one(objects, "ConfigMap", "phone-autoglm-phone-test")["data"]
    for script, text in scripts.items():
        (folder / script).write_text(text)
    environment = {e["name"]: e["value"] for e in _pod(objects, name)["spec"]["containers"][0]["env"]}
    environment |= {"AUTOGLM_URL": f"http://{address}", "PYTHONDONTWRITEBYTECODE": "1", "AUTOGLM_TIMEOUT_S": "10"}
    command = [sys.executable, "-I", "-c", _AS_SCRIPT, str(folder / f"{name}.py")]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30)


# isolated, so that only the standard library and the scripts' own folder are there
_AS_SCRIPT = (
    "import runpy, sys, os; sys.path.insert(0, os.path.dirname(sys.argv[1])); "
    "runpy.run_path(sys.argv[1], run_name='__main__')"
)


def _pod(objects: list[Object], name: str) -> Object:
    return one(objects, "Pod", f"phone-autoglm-phone-test-{name}")


def test_the_scripts_are_all_shipped():
    shipped = one(render(), "ConfigMap", "phone-autoglm-phone-test")["data"]

    assert shipped.keys() == {path.name for path in (FOLDER / "files/tests").glob("*.py")}

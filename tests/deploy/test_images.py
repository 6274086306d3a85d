"""The Dockerfiles: what they copy exists, what they install is pinned, what they start is what the chart starts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.helm.chart import GATEWAY, TRITON, container, pod_spec, render

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy/docker"
PARTS = ("gateway", "triton")
DEPLOYMENTS = {"gateway": GATEWAY, "triton": TRITON}


def instructions(part: str) -> list[tuple[str, str]]:
    """(NAME, arguments) of every instruction, lines continued and comments left out."""
    text = (DOCKER / f"{part}.Dockerfile").read_text()
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(name.upper(), rest) for name, rest in lines]


def last_stage(part: str) -> list[tuple[str, str]]:
    found = instructions(part)
    last = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    return found[last:]


def copied(part: str) -> list[str]:
    """What comes from the checkout."""
    copies = [rest.split() for name, rest in instructions(part) if name == "COPY"]
    return [path for words in copies if not words[0].startswith("--from") for path in words[:-1]]


@pytest.mark.parametrize("part", PARTS)
def test_what_is_copied_exists_and_is_not_ignored(part: str):
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}

    assert [path for path in copied(part) if not (ROOT / path).exists()] == []
    assert [path for path in copied(part) if path not in allowed] == []


@pytest.mark.parametrize("part", PARTS)
def test_it_runs_as_the_user_of_the_chart(part: str):
    (user,) = [rest for name, rest in last_stage(part) if name == "USER"]
    context = pod_spec(render(), DEPLOYMENTS[part])["securityContext"]

    assert user == f"{context['runAsUser']}:{context['runAsGroup']}" == "1000:1000"


@pytest.mark.parametrize("part", PARTS)
def test_it_starts_what_the_chart_starts(part: str):
    (entrypoint,) = [json.loads(rest) for name, rest in last_stage(part) if name == "ENTRYPOINT"]
    (command,) = [json.loads(rest) for name, rest in last_stage(part) if name == "CMD"]
    started = container(render(), DEPLOYMENTS[part])

    assert entrypoint == started["command"]
    assert set(command) <= set(started["args"])


@pytest.mark.parametrize("part", PARTS)
def test_it_exposes_the_ports_of_the_chart(part: str):
    (ports,) = [rest.split() for name, rest in last_stage(part) if name == "EXPOSE"]

    assert ports == [str(port["containerPort"]) for port in container(render(), DEPLOYMENTS[part])["ports"]]


@pytest.mark.parametrize("part", PARTS)
def test_no_base_image_names_a_registry(part: str):
    bases = [rest for name, rest in instructions(part) if name == "ARG" and rest.split("=")[0].endswith("_IMAGE")]

    assert bases
    assert [base for base in bases if "/" in base] == []


@pytest.mark.parametrize("part", PARTS)
def test_nothing_secret_stays_in_the_image(part: str):
    kept = [rest for name, rest in last_stage(part) if name in ("ARG", "ENV", "LABEL")]

    assert not [rest for rest in kept if re.search(r"TOKEN|PASSWORD|SECRET|INDEX_URL", rest)]


@pytest.mark.parametrize("part", PARTS)
def test_every_install_is_pinned(part: str):
    commands = [command for name, rest in instructions(part) if name == "RUN" for command in rest.split("&&")]
    installs = [command for command in commands if " install " in command and '"$TENSORRT"' not in command]

    assert installs
    assert [c for c in installs if "-c constraints.txt" not in c and "--no-deps" not in c] == []


@pytest.mark.parametrize("extras", ["gateway", "backend", "server", "engines"])
def test_every_requirement_of_an_image_is_in_the_lock(extras: str):
    if sys.version_info < (3, 11):
        pytest.skip("requirements.py runs in images, whose Python is 3.11 or newer")
    script = [sys.executable, str(DOCKER / "requirements.py"), extras, str(ROOT / "pyproject.toml")]
    lines = subprocess.run(script, capture_output=True, text=True, check=True).stdout.splitlines()
    locked = {
        canonicalize_name(line.split("==")[0])
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }

    required = {canonicalize_name(Requirement(line).name) for line in lines}

    assert "setuptools" in required
    assert required - locked == set()


def test_backend_leaves_triton_to_the_base_image():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    assert not [line for line in extras["backend"] if "pytriton" in line]
    assert [line for line in extras["server"] if "pytriton" in line]


@pytest.mark.parametrize("script", ["build.sh", "offline.sh"])
def test_a_script_says_how_it_is_used(script: str):
    asked = subprocess.run([str(DOCKER / script)], capture_output=True, text=True, check=False)

    assert asked.returncode == 2
    assert f"usage: deploy/docker/{script}" in asked.stderr


def test_a_triton_image_needs_a_base():
    environment = {"PATH": os.environ["PATH"]}
    script = [str(DOCKER / "build.sh"), "triton"]

    asked = subprocess.run(script, capture_output=True, text=True, check=False, env=environment)

    assert asked.returncode == 2
    assert "say what to build on: --build-arg TRITON_IMAGE=" in asked.stderr

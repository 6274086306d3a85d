"""The commands of docs/operations.md, on the chart as it is."""

from __future__ import annotations

import argparse
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.helm.chart import EXAMPLES, FOLDER, RELEASE, ROOT, merged, render

from autoglm_client.deploy.values import read_values

PAGE = (ROOT / "docs/operations.md").read_text()
FIRST = EXAMPLES["8x-h100"]
"""What the release has before it is upgraded, and the page's `values.yaml`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    verb: str
    release: str
    values: dict[str, Any]

    @property
    def objects(self) -> list[dict[str, Any]]:
        return render(self.values, release=self.release)


def helm_commands() -> list[Command]:
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("-f", action="append", default=[])
    parser.add_argument("--set", action="append", default=[])
    found: list[Command] = []
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL):
        for line in block.replace("\\\n", "").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["helm"] and words[1] in ("install", "upgrade"):
                assert ROOT / words[3] == FOLDER
                options, _ = parser.parse_known_args(words[4:])
                files = [ROOT / file for file in options.f if Path(file).name != file]
                base = FIRST if words[1] == "upgrade" or "values.yaml" in options.f else {}
                values = merged(base, read_values(files, options.set))
                found.append(Command(verb=words[1], release=words[2], values=values))
    return found


COMMANDS = helm_commands()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.verb}-{command.release}")
def test_a_command_is_not_refused(command: Command):
    assert command.objects


def test_the_page_has_installs_and_upgrades():
    assert {command.verb for command in COMMANDS} == {"install", "upgrade"}


def test_a_second_release_shares_no_cluster_wide_object_with_the_first():
    (second,) = [command for command in COMMANDS if command.release == "next"]

    assert not cluster_wide(render(FIRST)) & cluster_wide(second.objects)


def test_objects_that_the_page_names_are_there():
    rendered = {o["metadata"]["name"] for command in COMMANDS for o in command.objects}
    rendered |= {o["metadata"]["name"] for o in render(EXAMPLES["mig"])}

    named = set(re.findall(rf"\b(?:{RELEASE}|next)-autoglm-phone-[a-z-]+\b", PAGE))

    assert named
    assert named <= rendered


def cluster_wide(objects: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(o["kind"], o["metadata"]["name"]) for o in objects if "namespace" not in o["metadata"]}

"""The helm program, through pyhelm3."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import pyhelm3.command  # pyright: ignore[reportMissingTypeStubs]
import pyhelm3.errors  # pyright: ignore[reportMissingTypeStubs]
import yaml

from autoglm_client.deploy.errors import HelmError
from autoglm_client.deploy.helm import Revision, Target
from autoglm_client.deploy.objects import Object

_T = TypeVar("_T")
_PREFIXES = ("Error: ", "INSTALLATION FAILED: ", "UPGRADE FAILED: ")


class HelmProgram:
    """See `Helm`. An interrupt at the terminal reaches the program too, so it needs no stopping."""

    def __init__(self, executable: str, target: Target) -> None:
        # it logs as a warning what is raised here anyway, such as that there is no release yet
        logging.getLogger("pyhelm3").setLevel(logging.ERROR)
        self._executable = executable
        self._target = target
        command = pyhelm3.command.Command(
            executable=executable, kubeconfig=target.kubeconfig, kubecontext=target.context
        )
        self._command = cast("Any", command)

    @property
    def description(self) -> str:
        return f"{_run(self._command.version())} ({self._executable})"

    def render(self, chart: Path, values: Mapping[str, Any], *, is_upgrade: bool, kube_version: str) -> list[Object]:
        words = ["template", self._target.release, str(chart), "--namespace", self._target.namespace]
        words += ["--kube-version", kube_version, "--values", "-", *(["--is-upgrade"] if is_upgrade else [])]
        rendered: bytes = _run(self._command.run(words, json.dumps(values).encode()))
        return [item for item in yaml.safe_load_all(rendered) if item is not None]

    def apply(self, chart: Path, values: Mapping[str, Any], *, timeout_s: int, makes_namespace: bool) -> None:
        _run(
            self._command.install_or_upgrade(
                self._target.release,
                chart,
                dict(values),
                create_namespace=makes_namespace,
                namespace=self._target.namespace,
                timeout=f"{timeout_s}s",
            )
        )

    def rollback(self, revision: int, *, timeout_s: int) -> None:
        options = {"namespace": self._target.namespace, "timeout": f"{timeout_s}s"}
        _run(self._command.rollback(self._target.release, revision, **options))

    def uninstall(self, *, timeout_s: int) -> None:
        options = {"namespace": self._target.namespace, "timeout": f"{timeout_s}s"}
        _run(self._command.uninstall(self._target.release, **options))

    def test(self, *, timeout_s: int) -> None:
        words = ["test", self._target.release, "--namespace", self._target.namespace, "--timeout", f"{timeout_s}s"]
        _run(self._command.run(words))

    def history(self) -> list[Revision]:
        try:
            entries = _run(self._command.history(self._target.release, namespace=self._target.namespace))
        except _NoReleaseError:
            return []
        return [
            Revision(
                number=int(entry["revision"]),
                status=str(entry["status"]),
                chart=str(entry["chart"]),
                updated=str(entry["updated"])[:19].replace("T", " "),
                description=str(entry.get("description", "")),
            )
            for entry in entries
        ]

    def values(self) -> dict[str, Any]:
        return _run(self._command.get_values(self._target.release, namespace=self._target.namespace))


class _NoReleaseError(HelmError):
    pass


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    try:
        return asyncio.run(work)
    except pyhelm3.errors.ReleaseNotFoundError as error:
        raise _NoReleaseError("there is no such release") from error
    except pyhelm3.errors.Error as error:
        raise HelmError(_words(str(error))) from error


def _words(stderr: str) -> str:
    """What helm says, without its warnings and its own prefixes."""
    lines = [line for line in stderr.strip().splitlines() if not line.startswith("WARNING:")]
    text = "\n".join(lines)
    for prefix in _PREFIXES:
        text = text.removeprefix(prefix)
    return text

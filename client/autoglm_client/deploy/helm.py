"""Helm, by its program where one is on PATH, otherwise as a library; both say the same to the rest of this package."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from autoglm_client.deploy.errors import DeployError
from autoglm_client.deploy.objects import Object

# beside the packages in a checkout
DEFAULT_CHART = Path(__file__).resolve().parents[3] / "deploy" / "helm" / "autoglm-phone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What Helm acts on."""

    release: str
    namespace: str
    kubeconfig: Path | None = None
    context: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One entry of a release's history. `status` as Helm names it: deployed, failed, superseded, pending-install ..."""

    number: int
    status: str
    chart: str
    updated: str
    description: str


class Helm(Protocol):
    """Every method raises HelmError. `timeout_s` bounds the release's hooks; nothing waits for pods."""

    @property
    def description(self) -> str:
        """Which Helm this is, with its version."""
        ...

    def render(
        self, chart: Path, values: Mapping[str, Any], *, is_upgrade: bool, kube_version: str
    ) -> list[Object]: ...

    def apply(self, chart: Path, values: Mapping[str, Any], *, timeout_s: int, makes_namespace: bool) -> None:
        """Installs, or upgrades what is there; `values` are all of them."""
        ...

    def rollback(self, revision: int, *, timeout_s: int) -> None: ...

    def uninstall(self, *, timeout_s: int) -> None: ...

    def test(self, *, timeout_s: int) -> None: ...

    def history(self) -> list[Revision]:
        """Oldest first; empty where there is no such release."""
        ...

    def values(self) -> dict[str, Any]:
        """Those that the release was given, without the chart's defaults."""
        ...


def find_helm(target: Target) -> Helm:
    """Raises DeployError, which says how to get one, where there is neither."""
    program = shutil.which("helm")
    if program is not None:
        from autoglm_client.deploy.helm_program import HelmProgram

        return HelmProgram(program, target)
    if importlib.util.find_spec("helm_python") is None:
        raise DeployError(
            "no helm: neither is the program on PATH (helm.sh, version 3 or 4), nor is its library installed; from "
            'the checkout: pip install -c constraints.txt -e ".[deploy]"'
        )
    from autoglm_client.deploy.helm_library import HelmLibrary

    return HelmLibrary(target)


def read_chart(folder: Path) -> Object:
    """Chart.yaml. Raises DeployError."""
    try:
        return yaml.safe_load((folder / "Chart.yaml").read_text(encoding="utf-8"))
    except OSError as error:
        raise DeployError(
            f"--chart {folder} holds no chart ({error.strerror}): name the folder of autoglm-phone, which the checkout "
            "has in deploy/helm."
        ) from error

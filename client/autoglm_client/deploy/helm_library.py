"""Helm as a library (helm-python-sdk), for machines without the program."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import helm_python
import yaml

from autoglm_client.deploy.errors import HelmError
from autoglm_client.deploy.helm import Revision, Target
from autoglm_client.deploy.objects import Object


class HelmLibrary:
    """See `Helm`. Its `render` cannot be told the version of Kubernetes: templates that ask for it see Helm's own."""

    def __init__(self, target: Target) -> None:
        self._target = target

    @property
    def description(self) -> str:
        return f"Helm 4 as a library (helm-python-sdk {version('helm-python-sdk')})"

    def render(self, chart: Path, values: Mapping[str, Any], *, is_upgrade: bool, kube_version: str) -> list[Object]:
        release, namespace = self._target.release, self._target.namespace
        with _as_sentences():
            loaded = helm_python.Chart.load(chart)
            files = loaded.render(values=dict(values), name=release, namespace=namespace, is_upgrade=is_upgrade)
        texts = [text for name, text in sorted(files.items()) if not name.endswith("NOTES.txt")]
        return [item for text in texts for item in yaml.safe_load_all(text) if item is not None]

    def apply(self, chart: Path, values: Mapping[str, Any], *, timeout_s: int, makes_namespace: bool) -> None:
        release = self._target.release
        is_there = bool(self.history())
        with self._config() as config:
            if is_there:
                config.upgrade(str(chart), release, dict(values), timeout=timeout_s, reset_values=True)
            else:
                config.install(str(chart), release, dict(values), timeout=timeout_s, create_namespace=makes_namespace)

    def rollback(self, revision: int, *, timeout_s: int) -> None:
        with self._config() as config:
            config.rollback(self._target.release, version=revision, timeout=timeout_s)

    def uninstall(self, *, timeout_s: int) -> None:
        with self._config() as config:
            config.uninstall(self._target.release, timeout=timeout_s)

    def test(self, *, timeout_s: int) -> None:
        with self._config() as config:
            config.test(self._target.release, timeout=timeout_s)

    def history(self) -> list[Revision]:
        try:
            with self._config() as config:
                entries = config.history(self._target.release)
        except _NoReleaseError:
            return []
        return [_revision(entry) for entry in entries]

    def values(self) -> dict[str, Any]:
        with self._config() as config:
            return config.get_values(self._target.release) or {}

    @contextmanager
    def _config(self) -> Generator[helm_python.Config]:
        target = self._target
        with (
            _as_sentences(),
            helm_python.Config(
                kubeconfig_path=target.kubeconfig, kube_context=target.context, namespace=target.namespace
            ) as config,
        ):
            yield config


class _NoReleaseError(HelmError):
    pass


@contextmanager
def _as_sentences() -> Generator[None]:
    try:
        yield
    except helm_python.HelmNotFoundError as error:
        raise _NoReleaseError(str(error)) from error
    except helm_python.HelmError as error:
        raise HelmError(str(error)) from error


def _revision(entry: Mapping[str, Any]) -> Revision:
    return Revision(
        number=int(entry["revision"]),
        status=str(entry["status"]),
        chart=f"{entry['chart_name']}-{entry['chart_version']}",
        updated=str(entry["deployed_at"])[:19].replace("T", " "),
        description=str(entry.get("description", "")),
    )

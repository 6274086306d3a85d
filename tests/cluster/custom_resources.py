"""Definitions of other projects' resources, read out of their Go modules: none of their files is kept here."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from tests.cluster.api import Object
from tests.cluster.control_plane import ControlPlane
from tests.cluster.programs import command

# module@version -> where in it the definitions lie
MODULES = {
    "github.com/kedacore/keda/v2@v2.16.1": "config/crd/bases/*.yaml",
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": "example/prometheus-operator-crd/*.yaml",
    "istio.io/api@v1.24.2": "kubernetes/customresourcedefinitions.gen.yaml",
    "sigs.k8s.io/gateway-api@v1.4.0": "config/crd/standard/*.yaml",
    "sigs.k8s.io/gateway-api-inference-extension@v1.1.0": "config/crd/bases/*.yaml",
}
KINDS = {
    "HTTPRoute",
    "InferencePool",
    "PodMonitor",
    "PrometheusRule",
    "ScaledObject",
    "ServiceMonitor",
    "VirtualService",
}
_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class _Loader(yaml.CSafeLoader):
    """Takes a lone `=` (an operator in Alertmanager's matchers) as text, which PyYAML has no constructor for."""


_Loader.add_constructor("tag:yaml.org,2002:value", yaml.CSafeLoader.construct_yaml_str)


def module_folder(module: str, folder: Path) -> Path:
    """Where Go keeps that module, downloaded if need be. Raises RuntimeError when it cannot be had."""
    go = command("go")
    if go is None:
        raise RuntimeError("the definitions of custom resources come out of Go modules, and there is no go")
    # outside any module, so that no go.mod can redirect it
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"}
    done = subprocess.run(
        [go, "mod", "download", "-json", module],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"go mod download {module}: {done.stdout}{done.stderr}")
    return Path(json.loads(done.stdout)["Dir"])


def definitions(folder: Path) -> Iterator[Object]:
    """Those of KINDS; every one, once."""
    seen: set[str] = set()
    for module, pattern in MODULES.items():
        for path in sorted(module_folder(module, folder).glob(pattern)):
            for document in yaml.load_all(path.read_text(), _Loader):
                if document and document.get("kind") == "CustomResourceDefinition":
                    kind = document["spec"]["names"]["kind"]
                    group_kind = document["metadata"]["name"]
                    if kind in KINDS and "x-k8s.io" not in document["spec"]["group"] and group_kind not in seen:
                        seen.add(group_kind)
                        yield document
    found = {name.split(".", 1)[0] for name in seen}
    if len(found) != len(KINDS):
        raise RuntimeError(f"the modules define only {sorted(seen)}")


def establish(plane: ControlPlane) -> None:
    """Creates all definitions and returns when the API server serves them."""
    names = set()
    for definition in definitions(plane.folder):
        plane.api.must_create(_PATH, definition)
        names.add(definition["metadata"]["name"])

    def served(found: list[dict[str, Any]]) -> bool:
        established = {
            one["metadata"]["name"]
            for one in found
            for condition in one["status"].get("conditions") or []
            if condition["type"] == "Established" and condition["status"] == "True"
        }
        return names <= established

    plane.api.wait_for(_PATH, served)

"""The chart, rendered in this process by Helm's own library, and what tests ask of its objects."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart
from helm_python.errors import HelmError

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/helm/autoglm-phone"
RELEASE = "phone"
NAMESPACE = "ai"
TRITON = "phone-autoglm-phone-triton"
GATEWAY = "phone-autoglm-phone-gateway"
EXAMPLES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((FOLDER / "examples").glob("*.yaml"))}

Object = dict[str, Any]


@functools.cache
def chart() -> Chart:
    return Chart.load(FOLDER)


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Values as `-f` after `-f` gives them."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both_maps = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
            result[key] = merged(result[key], value) if both_maps else value
    return result


def render(values: Mapping[str, Any] | None = None, *, release: str = RELEASE) -> list[Object]:
    """Every object, hooks included, not to be changed. Raises HelmError when a check or the schema refuses."""
    return _render(json.dumps(values or {}), release)


@functools.cache
def _render(values: str, release: str) -> list[Object]:
    files = chart().render(values=json.loads(values), name=release, namespace=NAMESPACE)
    text = "\n---\n".join(text for name, text in sorted(files.items()) if not name.endswith("NOTES.txt"))
    return [found for found in yaml.load_all(text, yaml.CSafeLoader) if found is not None]


def notes(values: Mapping[str, Any]) -> str:
    """What `helm install` prints."""
    files = chart().render(values=dict(values), name=RELEASE, namespace=NAMESPACE)
    return next(text for name, text in files.items() if name.endswith("NOTES.txt"))


def refusal(values: Mapping[str, Any]) -> str:
    """Why these values are refused; "" when they are not."""
    try:
        render(values)
    except HelmError as error:
        return str(error)
    return ""


def one(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]
    return found


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [o for o in objects if o["kind"] == kind]


def pod_templates(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Kind/name of what makes the pod, and the pod (metadata and spec)."""
    for o in objects:
        if o["kind"] == "Pod":
            yield f"Pod/{o['metadata']['name']}", o
        elif o["kind"] in ("Deployment", "Job"):
            yield f"{o['kind']}/{o['metadata']['name']}", o["spec"]["template"]


def pod_spec(objects: list[Object], name: str) -> Object:
    return one(objects, "Deployment", name)["spec"]["template"]["spec"]


def container(objects: list[Object], name: str) -> Object:
    """The first container of a Deployment."""
    return pod_spec(objects, name)["containers"][0]

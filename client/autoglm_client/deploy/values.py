"""The values of a release: files over files, then single ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from autoglm_client.deploy.errors import DeployError

Values = dict[str, Any]


def read_values(files: Iterable[Path], assignments: Iterable[str]) -> Values:
    """Later ones win. Raises DeployError, naming the file or the assignment."""
    values: Values = {}
    for path in files:
        values = merged(values, _read(path))
    for assignment in assignments:
        values = merged(values, parse_assignment(assignment))
    return values


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Values:
    """As Helm merges: maps key by key, everything else is replaced."""
    result = dict(base)
    for key, value in over.items():
        present = result.get(key)
        if isinstance(value, Mapping) and isinstance(present, Mapping):
            result[key] = merged(cast("Mapping[str, Any]", present), cast("Mapping[str, Any]", value))
        else:
            result[key] = value
    return result


def parse_assignment(text: str) -> Values:
    """`triton.replicas=2` as nested maps, by Helm's own rules for --set. Raises DeployError."""
    import helm_python  # loads Helm, a second or so

    if not text.partition("=")[0] or "=" not in text:
        raise DeployError(f"--set {text!r} is not KEY.KEY=VALUE.")
    try:
        return helm_python.parse_set_string(text)
    except helm_python.HelmError as error:
        raise DeployError(f"--set {text!r} is not KEY.KEY=VALUE: {error}") from error


def _read(path: Path) -> Values:
    try:
        found: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DeployError(f"--values {path} cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DeployError(f"--values {path} is not YAML ({_one_line(error)}).") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise DeployError(f"--values {path} holds no map of values.")
    return cast("Values", found)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

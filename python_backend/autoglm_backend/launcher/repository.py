"""Assembles Triton's model repository for one checkpoint from the templates in model_repository/."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from autoglm_backend.launcher.errors import LaunchError


def assemble_repository(templates: Path, target: Path, parameters: Mapping[str, str]) -> tuple[str, ...]:
    """Copies every model of `templates` to `target` and sets `parameters` in each config. Returns the models' names.

    Raises LaunchError for a template that is not a valid model configuration.
    """
    names: list[str] = []
    for template in sorted(path.parent for path in templates.glob("*/config.pbtxt")):
        model = target / template.name
        shutil.copytree(template, model, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        config = model / "config.pbtxt"
        config.write_text(with_parameters(config.read_text(encoding="utf-8"), parameters, template), encoding="utf-8")
        names.append(template.name)
    return tuple(names)


def with_parameters(config_text: str, parameters: Mapping[str, str], source: Path) -> str:
    """The model configuration `config_text` (protobuf text) with `parameters` set, others of the same key replaced."""
    config = model_config_pb2.ModelConfig()  # pyright: ignore[reportAttributeAccessIssue] # made at import
    try:
        text_format.Parse(config_text, config)
    except text_format.ParseError as error:
        raise LaunchError(f"{source / 'config.pbtxt'} is not a model configuration: {error}") from error
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    return text_format.MessageToString(config)

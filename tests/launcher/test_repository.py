from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from autoglm_backend.launcher.errors import LaunchError
from autoglm_backend.launcher.repository import assemble_repository, with_parameters


def _parameters(config_text: str) -> dict[str, str]:
    config = text_format.Parse(config_text, model_config_pb2.ModelConfig())
    return {key: value.string_value for key, value in config.parameters.items()}


def test_every_model_is_copied_with_the_parameters_set(tmp_path: Path):
    templates = tmp_path / "templates"
    for name in ("decoder", "encoder"):
        (templates / name / "1").mkdir(parents=True)
        (templates / name / "1" / "model.py").write_text("code")
        (templates / name / "config.pbtxt").write_text('backend: "python"')

    names = assemble_repository(templates, tmp_path / "models", {"checkpoint_dir": "/some where/ünï"})

    assert names == ("decoder", "encoder")
    for name in names:
        assert (tmp_path / "models" / name / "1" / "model.py").read_text() == "code"
        config = (tmp_path / "models" / name / "config.pbtxt").read_text(encoding="utf-8")
        assert _parameters(config) == {"checkpoint_dir": "/some where/ünï"}


def test_the_templates_own_parameters_stay_unless_set(tmp_path: Path):
    template = """
        parameters { key: "kept" value { string_value: "1" } }
        parameters { key: "device" value { string_value: "auto" } }
    """

    assert _parameters(with_parameters(template, {"device": "cpu"}, tmp_path)) == {"kept": "1", "device": "cpu"}


def test_quotes_and_line_breaks_survive(tmp_path: Path):
    value = '{"a": "line\nbreak \\ \'quoted\'"}'

    assert _parameters(with_parameters("", {"engine_options": value}, tmp_path)) == {"engine_options": value}


def test_a_template_that_is_no_configuration_is_named(tmp_path: Path):
    with pytest.raises(LaunchError, match=r"decoder/config\.pbtxt is not a model configuration"):
        with_parameters("no_such_field: 1", {}, tmp_path / "decoder")


def test_compiled_files_stay_behind(tmp_path: Path):
    (tmp_path / "templates" / "m" / "1" / "__pycache__").mkdir(parents=True)
    (tmp_path / "templates" / "m" / "config.pbtxt").write_text("")

    assemble_repository(tmp_path / "templates", tmp_path / "models", {})

    assert not (tmp_path / "models" / "m" / "1" / "__pycache__").exists()

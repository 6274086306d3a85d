from pathlib import Path

import pytest

from autoglm_backend.launcher.options import ServeOptions, parse_options


def test_no_options_serve_the_default_checkpoint_under_both_names():
    options = parse_options([])

    assert options == ServeOptions()
    assert options.names == ("autoglm-phone-tiny", "autoglm-phone-9b")


def test_a_checkpoint_is_served_under_its_folder_name_and_the_alias():
    assert parse_options(["--checkpoint", "models/other/"]).names == ("other", "autoglm-phone-9b")


def test_given_names_replace_the_default_names():
    assert parse_options(["--served-model-name", "a", "--served-model-name", "b"]).names == ("a", "b")


def test_tritons_http_port_is_off_unless_asked_for():
    assert "--triton-http-port" not in parse_options([]).ports
    assert parse_options(["--triton-http-port", "8005"]).ports["--triton-http-port"] == 8005


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http"])
def test_a_port_outside_the_range_is_named(port: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        parse_options([f"--port={port}"])

    assert ended.value.code == 2
    assert f"argument --port: '{port}' is not a port from 1 to 65535" in capsys.readouterr().err


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        parse_options(["--help"])

    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(option in text for option in ServeOptions(triton_http_port=1).ports)
    assert "autoglm-phone-9b" in text


def test_a_relative_checkpoint_named_dot_is_served_under_its_real_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    checkpoint = tmp_path / "mine"
    checkpoint.mkdir()
    monkeypatch.chdir(checkpoint)

    assert parse_options(["--checkpoint", "."]).names[0] == "mine"

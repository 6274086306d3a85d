from dataclasses import replace
from pathlib import Path

import pytest

from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.launcher.options import ServeOptions, parse_options
from autoglm_backend.profiles import PROFILES, Profile


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


def test_nothing_is_said_to_the_engine_that_was_not_asked_for():
    assert parse_options([]).engine_options == {}
    assert parse_options(["--dynamic-batching", "on"]).engine_options == {}


def test_engine_switches_reach_the_engine():
    switches = ["--tensor-parallel-size=2", "--max-batch-size=5", "--dynamic-batching=off", "--kv-cache-tokens=640"]
    switches += ["--max-model-len=512", "--max-waiting=9", "--threads=1", "--dtype=bfloat16"]
    switches += ["--sparse-prefill=128", "--cuda-graphs=off"]

    assert EngineOptions.from_json(parse_options(switches).engine_options) == EngineOptions(
        tensor_parallel_size=2,
        max_batch_size=5,
        dynamic_batching=False,
        kv_cache_tokens=640,
        max_model_len=512,
        max_waiting=9,
        threads=1,
        dtype="bfloat16",
        sparse_prefill=128,
        cuda_graphs=False,
    )


def test_a_switch_replaces_one_value_of_a_profile():
    profile = parse_options(["--profile", "mobile", "--max-pixels", "78400", "--offload-encoders", "off"]).profile

    assert profile == replace(PROFILES["mobile"], max_pixels=78400, offload_encoders_s=None)


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_travels_to_the_models(name: str):
    profile = parse_options(["--profile", name]).profile

    assert Profile.from_json(profile.to_json()) == profile
    EngineOptions.from_json(profile.engine_options)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--max-batch-size", "0"], "argument --max-batch-size: '0' is not a whole number from 1"),
        (["--dynamic-batching", "yes"], "argument --dynamic-batching: 'yes' is neither on nor off"),
        (["--offload-encoders", "-3"], "argument --offload-encoders: '-3' is neither off nor a number of seconds"),
        (["--default-depth", "deep"], "default_depth is 'deep', must be auto, full or a number of layers"),
        (["--max-pixels", "800", "--min-pixels", "900"], "min_pixels is 900, more than max_pixels 800"),
        (["--profile", "desktop"], "argument --profile: invalid choice: 'desktop'"),
    ],
)
def test_a_bad_switch_is_named(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        parse_options(arguments)

    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err

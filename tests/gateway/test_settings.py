from __future__ import annotations

import pytest

from autoglm_gateway.settings import Settings, parse_settings


def test_without_arguments_the_defaults_stand():
    assert parse_settings([], {}) == Settings()


def test_the_launchers_command_line_is_understood():
    arguments = "--host 0.0.0.0 --port 1 --grpc-port 2 --triton-grpc a:1,b:2 --triton-metrics http://a/m"
    settings = parse_settings([*arguments.split(), "--served-model-name", "x", "--served-model-name", "y"], {})

    assert (settings.host, settings.port, settings.grpc_port) == ("0.0.0.0", 1, 2)
    assert settings.triton_grpc == ("a:1", "b:2")
    assert settings.triton_metrics == ("http://a/m",)
    assert settings.served_model_names == ("x", "y")


def test_an_environment_variable_sets_a_field_of_a_section_and_a_flag_wins():
    environment = {"AUTOGLM_GATEWAY_MAX_RUNNING": "7", "AUTOGLM_GATEWAY_FAKE": "yes", "AUTOGLM_GATEWAY_MEDIA_HOSTS": ""}

    assert parse_settings([], environment).admission.max_running == 7
    assert parse_settings([], environment).fake
    assert parse_settings([], environment).media.media_hosts == ()
    assert parse_settings(["--max-running", "8"], environment).admission.max_running == 8


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--port", "x"], {}, "--port"),
        (["--nonsense"], {}, "--nonsense"),
        (["--max-running", "0"], {}, "--max-running"),
        (["--max-audio-s", "60"], {}, "--max-audio-s"),
        (["--max-image-pixels", "0"], {}, "--max-image-pixels"),
        ([], {"AUTOGLM_GATEWAY_PORT": "x"}, "AUTOGLM_GATEWAY_PORT"),
        ([], {"AUTOGLM_GATEWAY_FAKE": "perhaps"}, "AUTOGLM_GATEWAY_FAKE"),
    ],
)
def test_a_bad_value_ends_with_a_sentence_that_names_it(
    arguments: list[str], environment: dict[str, str], words: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        parse_settings(arguments, environment)

    assert ended.value.code == 2
    assert words in capsys.readouterr().err

import socket
from pathlib import Path

import pytest

from autoglm_backend.launcher import preflight
from autoglm_backend.launcher.errors import LaunchError
from autoglm_backend.launcher.options import ServeOptions


def test_a_missing_checkpoint_is_named(tmp_path: Path):
    with pytest.raises(LaunchError, match=r"--checkpoint .*/nowhere is not a directory"):
        preflight.check_checkpoint(tmp_path / "nowhere")


def test_a_folder_without_weights_says_what_is_missing(tmp_path: Path):
    (tmp_path / "config.json").touch()

    with pytest.raises(LaunchError, match=r"tokenizer\.json, \*\.safetensors missing"):
        preflight.check_checkpoint(tmp_path)


def test_a_folder_with_config_tokenizer_and_weights_passes(tmp_path: Path):
    for name in ("config.json", "tokenizer.json", "model-00001-of-00002.safetensors"):
        (tmp_path / name).touch()

    preflight.check_checkpoint(tmp_path)


def test_a_folder_without_models_is_no_model_repository(tmp_path: Path):
    with pytest.raises(LaunchError, match="--model-repository"):
        preflight.check_model_repository(tmp_path)


def test_a_taken_port_names_the_option():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        with pytest.raises(LaunchError, match=rf"Port {port} on 127\.0\.0\.1 .*--grpc-port"):
            preflight.check_ports(ServeOptions(grpc_port=port))


def test_one_port_for_two_options_names_both():
    with pytest.raises(LaunchError, match="--port and --triton-grpc-port are both 12345"):
        preflight.check_ports(ServeOptions(port=12345, triton_grpc_port=12345))


def test_a_host_that_is_not_here_is_named():
    with pytest.raises(LaunchError, match=r"192\.0\.2\.1"):  # TEST-NET-1
        preflight.check_ports(ServeOptions(host="192.0.2.1"))


def test_a_value_that_is_neither_is_refused():
    with pytest.raises(LaunchError, match="ENABLE_DYNAMIC_GRAPH is 'perhaps'"):
        preflight.dynamic_graph_enabled({"ENABLE_DYNAMIC_GRAPH": "perhaps"})

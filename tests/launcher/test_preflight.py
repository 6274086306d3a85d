import socket
from pathlib import Path

import pytest
from tests.e2e.stack import free_ports
from tests.tiny_checkpoint import write_checkpoint

from autoglm_backend.launcher import preflight
from autoglm_backend.launcher.errors import LaunchError
from autoglm_backend.launcher.options import ServeOptions
from autoglm_backend.profiles import Profile


def test_a_missing_checkpoint_is_named(tmp_path: Path):
    with pytest.raises(LaunchError, match=r"--checkpoint .*/nowhere is not a directory"):
        preflight.check_checkpoint(ServeOptions(checkpoint=tmp_path / "nowhere"))


def test_a_folder_without_a_model_names_the_first_file_that_is_missing(tmp_path: Path):
    with pytest.raises(LaunchError, match=r"config\.json: no such file"):
        preflight.check_checkpoint(ServeOptions(checkpoint=tmp_path))


def test_a_whole_checkpoint_passes(tmp_path: Path):
    assert preflight.check_checkpoint(ServeOptions(checkpoint=write_checkpoint(tmp_path))) == ()


def test_an_image_budget_below_one_token_is_refused(tmp_path: Path):
    options = ServeOptions(checkpoint=write_checkpoint(tmp_path), profile=Profile(max_pixels=700))

    with pytest.raises(LaunchError, match="max_pixels is 700, one image token takes 784"):
        preflight.check_checkpoint(options)


def test_a_default_depth_that_the_checkpoint_has_not_is_refused(tmp_path: Path):
    options = ServeOptions(checkpoint=write_checkpoint(tmp_path), profile=Profile(default_depth="7"))

    with pytest.raises(LaunchError, match="default_depth"):
        preflight.check_checkpoint(options)


def test_a_tensor_parallel_size_that_does_not_divide_the_heads_is_refused():
    with pytest.raises(LaunchError, match="--tensor-parallel-size 3 does not divide the 4 attention heads"):
        preflight.check_tensor_parallel(ServeOptions(tensor_parallel_size=3), 4)


def test_more_devices_than_there_are_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(preflight, "num_nvidia_gpus", lambda: 2)

    with pytest.raises(LaunchError, match="--tensor-parallel-size 4 needs 4 GPUs, and 2 are visible"):
        preflight.check_tensor_parallel(ServeOptions(tensor_parallel_size=4), 8)
    preflight.check_tensor_parallel(ServeOptions(tensor_parallel_size=4, device="cpu"), 8)


def test_a_folder_without_models_is_no_model_repository(tmp_path: Path):
    with pytest.raises(LaunchError, match="--model-repository"):
        preflight.check_model_repository(tmp_path)


def test_a_taken_port_names_the_option():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        # Not the default ports: a server of this machine may have them.
        others = dict(zip(("port", "triton_grpc_port", "triton_metrics_port"), free_ports(3), strict=True))

        with pytest.raises(LaunchError, match=rf"Port {port} on 127\.0\.0\.1 .*--grpc-port"):
            preflight.check_ports(ServeOptions(grpc_port=port, **others))


def test_one_port_for_two_options_names_both():
    with pytest.raises(LaunchError, match="--port and --triton-grpc-port are both 12345"):
        preflight.check_ports(ServeOptions(port=12345, triton_grpc_port=12345))


def test_a_host_that_is_not_here_is_named():
    with pytest.raises(LaunchError, match=r"192\.0\.2\.1"):  # TEST-NET-1
        preflight.check_ports(ServeOptions(host="192.0.2.1"))


def test_a_value_that_is_neither_is_refused():
    with pytest.raises(LaunchError, match="ENABLE_DYNAMIC_GRAPH is 'perhaps'"):
        preflight.dynamic_graph_enabled({"ENABLE_DYNAMIC_GRAPH": "perhaps"})

"""Checks before anything is started; each refusal is one sentence that names the option to change."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from autoglm_backend import checkpoint_check
from autoglm_backend.bls.planner import Deployment, load_checkpoint_facts
from autoglm_backend.launcher.errors import LaunchError
from autoglm_backend.launcher.options import ServeOptions
from autoglm_backend.models.config import load_model_config
from autoglm_backend.preprocess.image import load_image_config
from autoglm_backend.profiles import STANDARD


def check(options: ServeOptions) -> tuple[str, ...]:
    """What the operator should know. Raises LaunchError for the first thing that would keep the server from starting
    as asked."""
    notices: tuple[str, ...] = ()
    if options.only != "gateway":
        notices = check_checkpoint(options)
        check_model_repository(options.model_repository)
        check_device(options.device)
        check_tensor_parallel(options, load_model_config(options.checkpoint).text.num_heads)
    check_ports(options)
    return notices


def check_checkpoint(options: ServeOptions) -> tuple[str, ...]:
    """What the operator should know of the checkpoint; its weights are not loaded."""
    folder = options.checkpoint
    if not folder.is_dir():
        raise LaunchError(f"--checkpoint {folder} is not a directory.")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise LaunchError(f"--checkpoint {folder} cannot be read by this user.")
    try:
        notices = checkpoint_check.check_checkpoint(folder)
        load_image_config(folder).within(options.profile.max_pixels, options.profile.min_pixels)
        facts = load_checkpoint_facts(folder, load_model_config(folder).text.num_layers)
        Deployment.of(options.profile, os.environ).check(facts)
    except OSError as error:
        raise LaunchError(f"{error.filename} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise LaunchError(f"{error}.") from error
    return notices


def check_tensor_parallel(options: ServeOptions, num_heads: int) -> None:
    size = options.tensor_parallel_size
    if num_heads % size:
        raise LaunchError(
            f"--tensor-parallel-size {size} does not divide the {num_heads} attention heads of this checkpoint."
        )
    num_gpus = num_nvidia_gpus()
    if options.device != "cpu" and num_gpus and size > num_gpus:
        raise LaunchError(f"--tensor-parallel-size {size} needs {size} GPUs, and {num_gpus} are visible here.")


def check_model_repository(templates: Path) -> None:
    if not any(templates.glob("*/config.pbtxt")):
        raise LaunchError(f"--model-repository {templates} holds no model (NAME/config.pbtxt).")


def check_device(device: str) -> None:
    if device == "cuda" and not has_nvidia_gpu():
        raise LaunchError("--device cuda needs an NVIDIA GPU and its driver, and none is visible here.")


def check_ports(options: ServeOptions) -> None:
    owners: dict[int, str] = {}
    for option, port in options.ports.items():
        if port in owners:
            raise LaunchError(f"{owners[port]} and {option} are both {port}.")
        owners[port] = option
    for option, port in options.ports.items():
        host = options.host if option in ("--port", "--grpc-port") else options.triton_host
        _check_port(option, host, port)


def _check_port(option: str, host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise LaunchError(f"--host {host} is not an address of this machine: {error.strerror}.") from error
    with socket.socket(family, kind, protocol) as probe:
        # as the servers do: a port in TIME_WAIT after the last run is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise LaunchError(f"Port {port} on {host} is not free ({reason}): choose another with {option}.") from error


def has_nvidia_gpu() -> bool:
    """Whether the driver shows a GPU here (/dev/dxg: in WSL)."""
    return num_nvidia_gpus() > 0 or Path("/dev/dxg").exists()


def num_nvidia_gpus() -> int:
    """GPUs that the driver shows and CUDA_VISIBLE_DEVICES leaves; 0 where they cannot be counted (WSL)."""
    present = len(list(Path("/dev").glob("nvidia[0-9]*")))
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return present if chosen is None else min(present, len([name for name in chosen.split(",") if name.strip()]))


def dynamic_graph_enabled(environment: Mapping[str, str] = os.environ) -> bool:
    """ENABLE_DYNAMIC_GRAPH as the planner reads it. Raises LaunchError for a value that it would refuse."""
    try:
        return Deployment.of(STANDARD, environment).dynamic_graph
    except ValueError as error:
        raise LaunchError(f"{error}.") from error

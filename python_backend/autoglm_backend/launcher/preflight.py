"""Checks before anything is started; each refusal is one sentence that names the option to change."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from autoglm_backend.bls.planner import Profile
from autoglm_backend.launcher.errors import LaunchError
from autoglm_backend.launcher.options import ServeOptions

LOOPBACK = "127.0.0.1"


def check(options: ServeOptions) -> None:
    """Raises LaunchError for the first thing that would keep the server from starting as asked."""
    check_checkpoint(options.checkpoint)
    check_model_repository(options.model_repository)
    check_device(options.device)
    check_ports(options)


def check_checkpoint(checkpoint: Path) -> None:
    if not checkpoint.is_dir():
        raise LaunchError(f"--checkpoint {checkpoint} is not a directory.")
    missing = [name for name in ("config.json", "tokenizer.json") if not (checkpoint / name).is_file()]
    if not any(checkpoint.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        raise LaunchError(f"--checkpoint {checkpoint} holds no model: {', '.join(missing)} missing.")


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
        host = options.host if option in ("--port", "--grpc-port") else LOOPBACK
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
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()


def dynamic_graph_enabled(environment: Mapping[str, str] = os.environ) -> bool:
    """ENABLE_DYNAMIC_GRAPH as the planner reads it. Raises LaunchError for a value that it would refuse."""
    try:
        return Profile.from_environment(environment).dynamic_graph
    except ValueError as error:
        raise LaunchError(f"{error}.") from error

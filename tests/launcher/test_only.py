"""`autoglm serve --only`: one of the two by itself, as in the pods of a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoglm_backend.launcher.commands import gateway_child, triton_child
from autoglm_backend.launcher.options import parse_options
from autoglm_backend.launcher.triton_binary import find_triton


def test_triton_alone_listens_where_it_was_asked_to(tmp_path: Path):
    options = parse_options(["--only", "triton", "--host", "0.0.0.0", "--triton-http-port", "8000"])

    command = triton_child(options, find_triton(), tmp_path).command

    assert {"--grpc-address=0.0.0.0", "--metrics-address=0.0.0.0", "--http-address=0.0.0.0"} <= set(command)


def test_beside_a_gateway_triton_stays_on_the_loopback(tmp_path: Path):
    options = parse_options(["--host", "0.0.0.0"])

    command = triton_child(options, find_triton(), tmp_path).command

    assert {"--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1"} <= set(command)


@pytest.mark.parametrize(
    ("only", "names"),
    [
        ((), {"--port", "--grpc-port", "--triton-grpc-port", "--triton-metrics-port"}),
        (("--only", "triton"), {"--triton-grpc-port", "--triton-metrics-port"}),
        (("--only", "gateway"), {"--port", "--grpc-port"}),
    ],
)
def test_only_its_own_ports_must_be_free(only: tuple[str, ...], names: set[str]):
    assert parse_options(only).ports.keys() == names


def test_the_gateway_lets_requests_finish_as_long_as_asked(tmp_path: Path):
    options = parse_options(["--drain-s", "77"])

    gateway = gateway_child(options, tmp_path).command
    assert gateway[gateway.index("--drain-s") + 1] == "77"

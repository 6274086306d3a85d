"""`autoglm serve --fake`: the gateway alone, for tests of clients and of load."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from autoglm_backend.launcher.commands import gateway_child
from autoglm_backend.launcher.options import parse_options


def test_the_fakes_knobs_reach_the_gateway(tmp_path: Path):
    options = parse_options(["--fake", "--fake-ttft-s", "0.1", "--fake-fail-at-token", "3"])
    command = gateway_child(options, tmp_path).command

    assert "--triton-grpc" not in command
    at = command.index("--fake")
    assert command[at : at + 5] == ("--fake", "--fake-ttft-s", "0.1", "--fake-fail-at-token", "3")


@pytest.mark.parametrize("arguments", [["--fake", "--only", "triton"], ["--fake-ttft-s", "1"]])
def test_what_does_not_go_together_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        parse_options(arguments)

    assert ended.value.code == 2
    assert "--fake" in capsys.readouterr().err


def test_it_serves_without_a_checkpoint_and_stops_on_request(tmp_path: Path):
    with socket.socket() as http, socket.socket() as grpc:
        for one in (http, grpc):
            one.bind(("127.0.0.1", 0))
        ports = [str(one.getsockname()[1]) for one in (http, grpc)]
    command = [sys.executable, "-m", "autoglm_backend.launcher", "--fake", "--fake-text", "Hi there."]
    command += ["--checkpoint", str(tmp_path / "none"), "--port", ports[0], "--grpc-port", ports[1]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while not any("endpoint enabled" in line for line in lines):
            lines.append(process.stdout.readline())
            assert lines[-1], "".join(lines)
        body = {"model": "none", "messages": [{"role": "user", "content": "Hi"}]}
        answer = httpx.post(f"http://127.0.0.1:{ports[0]}/v1/chat/completions", json=body).json()
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        status = process.wait(30)

    assert answer["choices"][0]["message"]["content"] == "Hi there."
    assert any("no model is loaded" in line for line in lines)
    assert status == 0

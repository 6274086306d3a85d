"""Starts the real gateway, and the real Triton with a scripted model, as processes on free ports."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from autoglm_backend.launcher.backend_folder import make_backend_folder, triton_environment
from autoglm_backend.launcher.triton_binary import find_triton
from autoglm_protocol.tensors import AUTOGLM_PHONE

START_TIMEOUT_S = 60.0
MODEL = "autoglm-phone-9b"


@dataclass(slots=True, kw_only=True)
class Gateway:
    process: subprocess.Popen[str]
    http: str
    grpc: str
    log: list[dict[str, Any]] = field(default_factory=list)
    logged: threading.Condition = field(default_factory=threading.Condition)

    @property
    def v1(self) -> str:
        return f"http://{self.http}/v1"

    def metric(self, name: str) -> float:
        """Sum of a metric's samples whose name and labels begin with `name`."""
        page = httpx.get(f"http://{self.http}/metrics", headers={"cache-control": "no-cache"}).text
        return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name))

    def wait_for_metric(self, name: str, value: float, *, timeout_s: float = 1.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while (seen := self.metric(name)) != value:
            assert time.monotonic() < deadline_s, f"{name} is {seen}, not {value}"

    def wait_for_log(self, **wanted: Any) -> dict[str, Any]:
        """The first log line with these entries."""

        def found() -> dict[str, Any] | None:
            return next((line for line in self.log if wanted.items() <= line.items()), None)

        with self.logged:
            line = self.logged.wait_for(found, 5)
        assert line is not None, f"no log line with {wanted}"
        return line

    def wait_until_ready(self, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while httpx.get(f"http://{self.http}/health/ready").status_code != 200:
            assert time.monotonic() < deadline_s, "the gateway did not become ready"


@contextlib.contextmanager
def running_gateway(*arguments: str, environment: dict[str, str] | None = None) -> Iterator[Gateway]:
    process = subprocess.Popen(
        [sys.executable, "-m", "autoglm_gateway", "--port", "0", "--grpc-port", "0", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    lines: list[dict[str, Any]] = []
    logged = threading.Condition()
    listening = threading.Event()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"message": "unstructured", "text": line}
            with logged:
                lines.append(entry)
                logged.notify_all()
            if lines[-1]["message"] == "listening":
                listening.set()
        listening.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert listening.wait(START_TIMEOUT_S), "the gateway did not start"
        found = next((line for line in lines if line["message"] == "listening"), None)
        assert found is not None, lines
        yield Gateway(process=process, http=found["http"], grpc=found["grpc"], log=lines, logged=logged)
    finally:
        process.terminate()
        try:
            process.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join()
        assert process.stderr is not None
        process.stderr.close()


@dataclass(slots=True, kw_only=True)
class Triton:
    process: subprocess.Popen[bytes]
    grpc: str
    metrics: str

    def inferences(self, model: str) -> float:
        page = httpx.get(self.metrics).text
        name = f'nv_inference_request_success{{model="{model}"'
        return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name))


@contextlib.contextmanager
def running_triton(folder: Path, *, grpc_port: int | None = None, metrics_port: int | None = None) -> Iterator[Triton]:
    """The real binary with the model of `scripted_model.py` under the name autoglm_phone."""
    grpc_port = grpc_port or free_port()
    metrics_port = metrics_port or free_port()
    installation = find_triton()
    model = folder / "models" / AUTOGLM_PHONE.model
    (model / "1").mkdir(parents=True, exist_ok=True)
    (model / "config.pbtxt").write_text(_config_pbtxt())
    (model / "1" / "model.py").write_text((Path(__file__).parent / "scripted_model.py").read_text())
    if not (folder / "backends").exists():
        make_backend_folder(installation, folder / "backends")
    with (folder / "triton.log").open("ab") as log:
        process = subprocess.Popen(
            [
                str(installation.binary),
                f"--model-repository={folder / 'models'}",
                f"--backend-directory={folder / 'backends'}",
                f"--backend-config=python,shm-region-prefix-name=gateway_{grpc_port}",
                "--disable-auto-complete-config",
                "--allow-http=false",
                "--exit-timeout-secs=5",
                "--grpc-address=127.0.0.1",
                f"--grpc-port={grpc_port}",
                "--metrics-address=127.0.0.1",
                f"--metrics-port={metrics_port}",
                "--allow-gpu-metrics=false",
            ],
            env=triton_environment(installation),
            stdout=log,
            stderr=log,
        )
    try:
        _wait_until_ready(process, grpc_port, folder / "triton.log")
        yield Triton(process=process, grpc=f"127.0.0.1:{grpc_port}", metrics=f"http://127.0.0.1:{metrics_port}/metrics")
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    deadline_s = time.monotonic() + START_TIMEOUT_S
    options = (("grpc.max_reconnect_backoff_ms", 200), ("grpc.initial_reconnect_backoff_ms", 100))
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        while True:
            try:
                request = service_pb2.ModelReadyRequest(name=AUTOGLM_PHONE.model)
                if stub.ModelReady(request, timeout=1.0, wait_for_ready=True).ready:
                    return
            except grpc.RpcError:
                pass
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline_s, log.read_text()[-3000:]


def _config_pbtxt() -> str:
    lines = [
        'backend: "python"',
        "max_batch_size: 0",
        f"model_transaction_policy {{ decoupled: {str(AUTOGLM_PHONE.decoupled).lower()} }}",
        'parameters { key: "features" value { string_value: "n,logprobs" } }',
        "instance_group [{ kind: KIND_CPU }]",
    ]
    for word, specs in (("input", AUTOGLM_PHONE.inputs), ("output", AUTOGLM_PHONE.outputs)):
        for spec in specs:
            dtype = "STRING" if spec.dtype == "BYTES" else spec.dtype
            optional = " optional: true" if spec.optional else ""
            dims = ", ".join(map(str, spec.dims))
            lines.append(f'{word} {{ name: "{spec.name}" data_type: TYPE_{dtype} dims: [{dims}]{optional} }}')
    return "\n".join(lines)

"""The launcher as a user runs it: a real tritonserver with one small Python model, the real gateway, real signals."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
from tests.launcher.process_tree import descendants, runs
from tests.tiny_checkpoint import write_checkpoint

import autoglm_protocol
from autoglm_backend import status_lines
from autoglm_backend.launcher.readiness import triton_is_ready
from autoglm_backend.launcher.run_folder import sweep
from autoglm_backend.profiles import STANDARD
from autoglm_backend.status_lines import Refused

pytestmark = pytest.mark.triton

_REPOSITORY = Path(__file__).with_name("model_repository")
_LISTENING = "[INFO] OpenAI-compatible endpoint enabled at /v1/chat/completions"


class _Server:
    """A launcher in a subprocess; `lines` is all it has printed up to the last line that was waited for."""

    def __init__(self, tmp_path: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.temporary = tmp_path / "tmp"
        self.temporary.mkdir(exist_ok=True)
        checkpoint = tmp_path / "tiny-test-checkpoint"
        if not checkpoint.exists():
            write_checkpoint(checkpoint)
        self.port, self.grpc_port, self.triton_port, self.metrics_port = _free_ports(4)
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "autoglm_backend.launcher", "--device", "cpu"),
                *("--checkpoint", checkpoint, "--model-repository", _REPOSITORY),
                *("--port", str(self.port), "--grpc-port", str(self.grpc_port)),
                *("--triton-grpc-port", str(self.triton_port), "--triton-metrics-port", str(self.metrics_port)),
                *arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "TMPDIR": str(self.temporary), **(environment or {})},
        )

    def wait_for(self, wanted: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if wanted in line:
                return
        pytest.fail("\n".join(["the launcher ended without that line; it printed:", *self.lines]))

    def end(self) -> int:
        """The exit status, once the launcher has ended; `lines` is complete then."""
        assert self.process.stdout is not None
        self.lines += self.process.stdout.read().splitlines()
        return self.process.wait()

    def children(self) -> dict[str, int]:
        """Program -> process id of the launcher's children."""
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return {_program(int(pid)): int(pid) for pid in pids}

    def ask_model(self, text: str) -> dict[str, object]:
        with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{self.triton_port}") as client:
            tensor = tritonclient.grpc.InferInput("TEXT", [1], "BYTES")
            tensor.set_data_from_numpy(np.array([text.encode()], dtype=object))
            return json.loads(client.infer("autoglm_phone", [tensor]).as_numpy("SEEN")[0])


@contextlib.contextmanager
def _launched(tmp_path: Path, *arguments: str, environment: dict[str, str] | None = None) -> Iterator[_Server]:
    server = _Server(tmp_path, *arguments, environment=environment)
    try:
        yield server
    finally:
        server.process.terminate()
        try:
            server.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.communicate()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


def _program(pid: int) -> str:
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return "gateway" if b"autoglm_gateway" in arguments else Path(arguments[0].decode()).name


def _wait_until_over(descriptor: int) -> None:
    """A pidfd turns readable when its process has ended."""
    try:
        readable, _, _ = select.select([descriptor], [], [], 60)
        assert readable
    finally:
        os.close(descriptor)


def test_a_start_ends_in_the_lines_that_guides_show_and_a_stop_leaves_nothing(tmp_path: Path):
    with _launched(tmp_path) as server:
        server.wait_for(_LISTENING)
        run = next(server.temporary.iterdir())
        family = list(server.children().values())
        family += [pid for child in family for pid in descendants(child)]
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/health/ready") as response:
            assert response.status == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.end() == 0

    loaded, graph, listening, endpoint = server.lines[-6:-2]
    assert loaded.startswith("[INFO] Model loaded in ")
    assert loaded.endswith(" seconds.")
    assert graph == "[INFO] Dynamic computation graph engine enabled"
    assert listening == f"[INFO] Server listening on http://127.0.0.1:{server.port}"
    assert endpoint == _LISTENING
    assert "[DYNAMIC GRAPH] echo is loaded" in server.lines
    assert not any("a line that only the log holds" in line for line in server.lines)
    assert list(server.temporary.iterdir()) == []
    assert list(Path("/dev/shm").glob(f"{run.name}*")) == []
    assert not [pid for pid in family if runs(pid)]


def test_a_model_sees_our_packages_its_parameters_and_its_lines_pass_through(tmp_path: Path):
    with _launched(tmp_path, environment={"OMP_NUM_THREADS": "1"}) as server:
        server.wait_for(_LISTENING)
        seen = server.ask_model("something")
        server.wait_for("[DYNAMIC GRAPH] echo of something")

    assert seen["protocol"] == autoglm_protocol.__file__
    assert seen["omp_num_threads"] == "1"
    assert seen["parameters"] == {
        "greeting": "hello",
        "checkpoint_dir": str(tmp_path / "tiny-test-checkpoint"),
        "device": "cpu",
        "engine_options": "{}",
        "profile": STANDARD.to_json(),
    }


def test_a_switched_off_dynamic_graph_is_said(tmp_path: Path):
    with _launched(tmp_path, environment={"ENABLE_DYNAMIC_GRAPH": "False"}) as server:
        server.wait_for("[INFO] Dynamic computation graph engine disabled (ENABLE_DYNAMIC_GRAPH=False)")


def test_an_interrupt_during_the_start_ends_it_with_status_0(tmp_path: Path):
    with _launched(tmp_path) as server:
        server.wait_for("Starting Triton")
        server.process.send_signal(signal.SIGINT)

        assert server.end() == 0

    assert list(server.temporary.iterdir()) == []


def test_the_death_of_triton_ends_everything_with_its_last_lines(tmp_path: Path):
    with _launched(tmp_path) as server:
        server.wait_for(_LISTENING)
        children = server.children()
        run = next(server.temporary.iterdir())
        stubs = descendants(children["tritonserver"])
        os.kill(children["tritonserver"], signal.SIGKILL)

        assert server.end() == 1

    assert "[ERROR] Triton was killed by signal 9; its last lines:" in server.lines
    assert any("Started GRPCInferenceService" in line for line in server.lines)
    assert list(server.temporary.iterdir()) == []
    assert list(Path("/dev/shm").glob(f"{run.name}*")) == []
    assert stubs
    assert not [pid for pid in (children["gateway"], *stubs) if runs(pid)]


def test_the_death_of_the_gateway_ends_everything(tmp_path: Path):
    with _launched(tmp_path) as server:
        server.wait_for(_LISTENING)
        children = server.children()
        os.kill(children["gateway"], signal.SIGKILL)

        assert server.end() == 1

    assert any(line.startswith("[ERROR] gateway was killed by signal 9") for line in server.lines)
    assert not runs(children["tritonserver"])


def test_a_model_that_cannot_load_is_shown_with_its_reason(tmp_path: Path):
    broken = tmp_path / "models" / "broken"
    (broken / "1").mkdir(parents=True)
    (broken / "config.pbtxt").write_text('backend: "python"\n')
    (broken / "1" / "model.py").write_text("raise RuntimeError('the weights are missing')\n")

    with _launched(tmp_path, "--model-repository", str(tmp_path / "models")) as server:
        assert server.end() == 1

    assert any(line.startswith("[ERROR] Triton ended with status 1") for line in server.lines)
    assert any("the weights are missing" in line for line in server.lines)


def test_the_children_of_a_killed_launcher_end_and_the_next_start_sweeps(tmp_path: Path):
    with _launched(tmp_path) as server:
        server.wait_for(_LISTENING)
        children = list(server.children().values())
        descriptors = [os.pidfd_open(pid) for child in children for pid in (child, *descendants(child))]
        server.process.kill()
        server.end()
        for descriptor in descriptors:
            _wait_until_over(descriptor)
    left = list(server.temporary.iterdir())
    assert len(left) == 1

    with _launched(tmp_path) as server:
        server.wait_for("Starting Triton")
        assert left[0] not in list(server.temporary.iterdir())


def test_the_models_of_a_killed_triton_end_without_the_launcher(tmp_path: Path):
    with _launched(tmp_path) as server:
        server.wait_for(_LISTENING)
        triton = server.children()["tritonserver"]
        stubs = [os.pidfd_open(pid) for pid in descendants(triton)]
        server.process.kill()
        os.kill(triton, signal.SIGKILL)

        assert stubs
        for stub in stubs:
            _wait_until_over(stub)
        sweep(server.temporary)


def test_a_taken_port_is_one_sentence(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with _launched(tmp_path, "--triton-grpc-port", str(port)) as server:
            assert server.end() == 2

    assert server.lines == [
        f"[ERROR] Port {port} on 127.0.0.1 is not free (address already in use): "
        "choose another with --triton-grpc-port."
    ]


def test_a_missing_checkpoint_is_one_sentence(tmp_path: Path):
    with _launched(tmp_path, "--checkpoint", "no/such/checkpoint") as server:
        assert server.end() == 2

    assert server.lines == ["[ERROR] --checkpoint no/such/checkpoint is not a directory."]


def test_a_damaged_checkpoint_is_one_sentence_that_names_the_file(tmp_path: Path):
    broken = write_checkpoint(tmp_path / "broken")
    shard = broken / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1000])

    with _launched(tmp_path, "--checkpoint", str(broken)) as server:
        assert server.end() == 2

    assert len(server.lines) == 1
    assert server.lines[0].startswith(f"[ERROR] {shard}: damaged or truncated safetensors file")


def test_a_model_that_refuses_its_weights_is_one_sentence(tmp_path: Path):
    refusing = tmp_path / "models" / "refusing"
    (refusing / "1").mkdir(parents=True)
    (refusing / "config.pbtxt").write_text('backend: "python"\n')
    line = status_lines.write(Refused(message="model.safetensors: too small"))
    (refusing / "1" / "model.py").write_text(f"print({line!r}, flush=True)\nraise RuntimeError('seen by nobody')\n")

    with _launched(tmp_path, "--model-repository", str(tmp_path / "models")) as server:
        assert server.end() == 2

    assert server.lines[-1] == "[ERROR] model.safetensors: too small"
    assert not any("Traceback" in line for line in server.lines)


async def test_a_triton_that_is_not_there_is_not_ready():
    assert not await triton_is_ready("127.0.0.1", _free_ports(1)[0])

"""The liveness probe of Triton's pods: its script, run as the kubelet runs it, against a stand-in for Triton."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.helm.chart import FOLDER, TRITON, Object, container, of_kind, one, pod_spec, render
from tests.helm.variants import VARIANTS

_FINISHED = {"type": "finished", "finish_reason": "length"}


@dataclass(kw_only=True)
class FakeTriton:
    """Answers one port for all: `tokens` made so far, and `answer` to whoever asks for one; None: never."""

    tokens: int = 7
    status: int = 200
    answer: str | None = ""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    port: int = 0
    is_over: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def triton() -> Iterator[FakeTriton]:
    fake = FakeTriton(answer=f"data: {json.dumps({'event': json.dumps(_FINISHED)})}\n\n")

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            lines = ("# TYPE autoglm_tokens_total counter", f'autoglm_tokens_total{{layers="24"}} {fake.tokens}')
            self._send(200, "\n".join((*lines, "nv_other 1", "")))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            fake.asked.append((self.path, json.loads(body)))
            if fake.answer is None:
                fake.is_over.wait()
            else:
                self._send(fake.status, fake.answer)

        def _send(self, status: int, text: str) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        fake.port = server.server_address[1]
        with _serving(server):
            yield fake
            fake.is_over.set()


@contextlib.contextmanager
def _serving(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


def look(triton: FakeTriton, folder: Path, *, seconds: float = 30) -> str:
    """What it complains of."""
    script, tokens = FOLDER / "files/probe/answers.py", folder / "tokens"
    command = [sys.executable, "-IS", str(script), str(seconds), str(tokens), str(triton.port), str(triton.port)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode == 0) == (run.stderr == "")
    return run.stderr


@pytest.fixture
def looked(triton: FakeTriton, tmp_path: Path) -> Path:
    """Where a first look has written down the tokens."""
    look(triton, tmp_path)
    triton.asked.clear()
    return tmp_path


def test_while_tokens_are_made_nothing_is_asked(triton: FakeTriton, looked: Path):
    triton.tokens += 1

    assert look(triton, looked) == ""
    assert triton.asked == []


def test_a_quiet_server_makes_one_token_before_all_others(triton: FakeTriton, looked: Path):
    assert look(triton, looked) == ""

    ((path, inputs),) = triton.asked
    assert path == "/v2/models/autoglm_phone/generate_stream"
    assert json.loads(inputs["sampling"])["max_tokens"] == 1
    assert json.loads(inputs["options"])["priority"] < 0


def test_no_answer_in_time_is_a_hang(triton: FakeTriton, looked: Path):
    triton.answer = None

    assert "no token was made in time" in look(triton, looked, seconds=0.5)


def test_a_full_server_that_makes_no_token_hangs(triton: FakeTriton, looked: Path):
    triton.status, triton.answer = 400, '{"error": "256 streams run [OverloadedError code=overloaded]"}'

    assert "OverloadedError" in look(triton, looked)


@pytest.mark.parametrize(
    "error",
    [
        "Stub process is not healthy.",
        "a model of the server does not answer [UnavailableError code=backend_unavailable]",
        "the decoder failed on this request [InternalError code=internal_error]",
    ],
)
def test_a_failure_behind_a_live_triton_is_found(triton: FakeTriton, looked: Path, error: str):
    triton.status, triton.answer = 400, json.dumps({"error": error})

    assert error in look(triton, looked)


def test_whoever_refuses_the_question_does_not_hang(triton: FakeTriton, looked: Path):
    triton.status, triton.answer = 400, '{"error": "no such depth [InvalidRequestError code=invalid_value]"}'

    assert look(triton, looked) == ""


def test_where_nobody_listens_it_fails(looked: Path):
    assert "Connection refused" in look(FakeTriton(port=1), looked)


def test_the_pod_runs_the_script_within_the_probes_time():
    objects = render()
    liveness = container(objects, TRITON)["livenessProbe"]
    python, flags, script, seconds, _ = liveness["exec"]["command"]

    assert (python, flags) == ("python", "-IS")
    assert script == f"/probe/{_script(objects)}"
    assert float(seconds) < liveness["timeoutSeconds"]


def test_a_pod_that_hangs_is_not_drained():
    objects = render()
    liveness = container(objects, TRITON)["livenessProbe"]
    pre_stop_s = container(objects, TRITON)["lifecycle"]["preStop"]["sleep"]["seconds"]

    assert pre_stop_s < liveness["terminationGracePeriodSeconds"] < _grace_s(objects)


def test_it_can_be_left_to_triton():
    objects = render(VARIANTS["all options"])

    assert container(objects, TRITON)["livenessProbe"]["httpGet"] == {"path": "/v2/health/live", "port": "http"}
    assert f"{TRITON}-probe" not in {o["metadata"]["name"] for o in of_kind(objects, "ConfigMap")}


def _script(objects: list[Object]) -> str:
    (name,) = one(objects, "ConfigMap", f"{TRITON}-probe")["data"]
    return name


def _grace_s(objects: list[Object]) -> int:
    return pod_spec(objects, TRITON)["terminationGracePeriodSeconds"]

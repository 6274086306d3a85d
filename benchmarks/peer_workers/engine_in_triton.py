"""This engine inside Triton, behind the gateway: `python engine_in_triton.py CHECKPOINT THREADS DTYPE QUANTIZATION`."""

from __future__ import annotations

import base64
import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import loop
from tokenizers import Tokenizer

START_TIMEOUT_S = 180.0
TEMPLATE_TOKENS = 8
"""About what the chat template adds to a prompt; so many fewer tokens of text are sent."""


def main() -> None:
    out = loop.take_output()
    directory, threads, dtype, quantization = sys.argv[1:]
    tokenizer = Tokenizer.from_file(str(Path(directory) / "tokenizer.json"))
    http, grpc, triton, metrics = free_ports(4)
    command = [sys.executable, "-m", "autoglm_backend.launcher", "--checkpoint", directory, "--device", "cpu"]
    command += ["--threads", threads, "--dtype", dtype, "--quantization", quantization]
    command += ["--port", str(http), "--grpc-port", str(grpc), "--triton-grpc-port", str(triton)]
    command += ["--triton-metrics-port", str(metrics), "--log-dir", tempfile.mkdtemp()]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the server ends with this process
    server = subprocess.Popen(command, stdout=sys.stderr)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{http}", timeout=600) as client, ThreadPoolExecutor(16) as pool:
            wait_until_ready(client, server)

            def ask(ids: list[int], max_tokens: int, image: str | None) -> None:
                content: list[dict[str, object]] = [
                    {"type": "text", "text": tokenizer.decode(ids[TEMPLATE_TOKENS:], skip_special_tokens=False)}
                ]
                if image is not None:
                    data = base64.b64encode(Path(image).read_bytes()).decode()
                    content.insert(0, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}})
                body = {
                    "model": "autoglm-phone-9b",
                    "messages": [{"role": "user", "content": content}],
                    "max_tokens": max_tokens,
                    "temperature": 0,
                    "ignore_eos": True,
                }
                answer = client.post("/v1/chat/completions", json=body)
                answer.raise_for_status()
                assert answer.json()["usage"]["completion_tokens"] == max_tokens, answer.text

            def generate(prompts: list[list[int]], max_tokens: int, image: str | None) -> None:
                list(pool.map(lambda ids: ask(ids, max_tokens, image), prompts))

            loop.serve(generate, out)
    finally:
        server.terminate()
        server.wait(60)


def wait_until_ready(client: httpx.Client, server: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with status {server.returncode}")
        with contextlib.suppress(httpx.TransportError):
            if client.get("/health/ready").status_code == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(f"the server was not ready after {START_TIMEOUT_S:.0f} s")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


if __name__ == "__main__":
    main()

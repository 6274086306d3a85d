"""An API server that answers from a table of recorded objects, over HTTP, to the real Kubernetes client."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Answers = Mapping[str, Any]
"""Path -> the object, or the status code of a refusal. Reviews of access are answered from "may"."""

ACCESS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@contextmanager
def recorded_cluster(answers: Answers, folder: Path) -> Iterator[Path]:
    """A kubeconfig for it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(answers.get(urlsplit(self.path).path, 404))

        def do_POST(self) -> None:
            path = urlsplit(self.path).path
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if path == ACCESS:
                wanted = body["spec"]["resourceAttributes"]
                may = answers.get("may", lambda attributes: True)
                self._answer({"status": {"allowed": bool(may(wanted))}})
            else:
                self._answer(answers.get(f"POST {path}", body))

        def _answer(self, answer: Any) -> None:
            if isinstance(answer, tuple):
                status, message = answer
                body = json.dumps({"kind": "Status", "message": message}).encode()
            elif isinstance(answer, int):
                status, body = answer, json.dumps({"kind": "Status", "message": f"recorded {answer}"}).encode()
            elif isinstance(answer, str):
                status, body = 200, answer.encode()
            else:
                status, body = 200, json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield write_kubeconfig(folder / "kubeconfig", f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def write_kubeconfig(path: Path, url: str) -> Path:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "recorded", "cluster": {"server": url}}],
        "users": [{"name": "user", "user": {"token": "t"}}],
        "contexts": [{"name": "recorded", "context": {"cluster": "recorded", "user": "user", "namespace": "ai"}}],
        "current-context": "recorded",
    }
    path.write_text(json.dumps(config))
    return path


def items(*objects: Mapping[str, Any]) -> dict[str, Any]:
    return {"items": list(objects)}


def node(
    name: str, *, gpus: int = 0, taints: tuple[str, ...] = (), labels: Mapping[str, str] | None = None, **spec: Any
):
    allocatable = {"cpu": "64", "memory": "512Gi", "pods": "110", **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    return {
        "metadata": {"name": name, "labels": dict(labels or {})},
        "spec": {"taints": [{"key": key, "effect": "NoSchedule"} for key in taints], **spec},
        "status": {"allocatable": allocatable, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def resources(*kinds: tuple[str, str]) -> dict[str, Any]:
    """Of an API group, as discovery lists them: (plural, kind)."""
    return {"resources": [{"name": plural, "kind": kind, "namespaced": True} for plural, kind in kinds]}

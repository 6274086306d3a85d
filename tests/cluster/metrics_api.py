"""An external metrics API (what prometheus-adapter is in a cluster) that replays a trace, one sample a question."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from tests.cluster.control_plane import ControlPlane

GROUP = "external.metrics.k8s.io"
_PREFIX = f"/apis/{GROUP}/v1beta1"


@dataclass(slots=True)
class Replay:
    """The value of every metric: 0 before `start`, then one sample after the other, then the last."""

    samples: Sequence[int] = (0,)
    position: int = 0
    """Of the sample that the next question gets."""
    asked: set[tuple[str, str]] = field(default_factory=set)
    """Metrics, and the selectors that they were asked for with."""

    def start(self, samples: Sequence[int]) -> None:
        self.samples, self.position = samples, 0

    def next(self) -> int:
        value = self.samples[min(self.position, len(self.samples) - 1)]
        self.position += 1
        return value


@contextlib.contextmanager
def external_metrics(plane: ControlPlane) -> Iterator[Replay]:
    """Registered with the API server, which forwards to this process."""
    replay = Replay()
    name = "external-metrics"
    pair = plane.authority.server(name, "localhost", f"{name}.kube-system.svc")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(replay))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair.cert, pair.key)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        _register(plane, name, server.server_address[1])
        yield replay
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _register(plane: ControlPlane, name: str, port: int) -> None:
    # a Service that stands for a name outside: pods' addresses, which others need, must not be loopback
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
    }
    plane.api.must_create("/api/v1/namespaces/kube-system/services", service)
    registration = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": f"v1beta1.{GROUP}"},
        "spec": {
            "group": GROUP,
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "caBundle": base64.b64encode(plane.authority.ca_file.read_bytes()).decode(),
            "service": {"name": name, "namespace": "kube-system", "port": port},
        },
    }
    path = "/apis/apiregistration.k8s.io/v1/apiservices"
    plane.api.must_create(path, registration)

    def is_available(services: list[dict[str, object]]) -> bool:
        return any(
            condition["type"] == "Available" and condition["status"] == "True"
            for one in services
            if one["metadata"]["name"] == f"v1beta1.{GROUP}"  # type: ignore[index]
            for condition in one.get("status", {}).get("conditions") or []  # type: ignore[attr-defined]
        )

    plane.api.wait_for(path, is_available)


def _handler(replay: Replay) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if url.path == _PREFIX:
                self._answer({"kind": "APIResourceList", "groupVersion": f"{GROUP}/v1beta1", "resources": []})
            elif url.path.startswith(f"{_PREFIX}/namespaces/"):
                metric = url.path.rsplit("/", 1)[1]
                selector = parse_qs(url.query).get("labelSelector", [""])[0]
                replay.asked.add((metric, selector))
                item = {"metricName": metric, "metricLabels": {}, "timestamp": _NOW, "value": str(replay.next())}
                self._answer({"kind": "ExternalMetricValueList", "items": [item]})
            else:
                self.send_error(404)

        def _answer(self, content: dict[str, object]) -> None:
            body = json.dumps({"apiVersion": f"{GROUP}/v1beta1", **content}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """The API server asks often."""

    return Handler


_NOW = "2026-01-01T00:00:00Z"  # the autoscaler shows it and does not judge by it

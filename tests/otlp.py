"""An OpenTelemetry collector inside the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass(slots=True, kw_only=True)
class Collector:
    endpoint: str = ""
    spans: list[Any] = field(default_factory=list)
    services: dict[bytes, str] = field(default_factory=dict)
    """Span id -> service.name."""
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def trace(self, trace_id: str, *, last: str) -> dict[str, Any]:
        """Spans of a trace by name, once the one called `last` has come."""

        def named() -> dict[str, Any]:
            return {span.name: span for span in self.spans if span.trace_id.hex() == trace_id}

        with self.arrived:
            assert self.arrived.wait_for(lambda: last in named(), 20), f"no span {last}, only {sorted(named())}"
            return named()


@contextmanager
def collector() -> Iterator[Collector]:
    collected = Collector()

    class Service(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:
            with collected.arrived:
                for resource in request.resource_spans:
                    names = {a.key: a.value.string_value for a in resource.resource.attributes}
                    for scope in resource.scope_spans:
                        collected.spans.extend(scope.spans)
                        collected.services |= {span.span_id: names["service.name"] for span in scope.spans}
                collected.arrived.notify_all()
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), server)
    collected.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collected
    finally:
        server.stop(None).wait()

"""OpenTelemetry spans of a request, and its W3C trace context on the way to Triton.

Without an endpoint no span is recorded, and a caller's own `traceparent` is passed on as it came.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NoOpTracer, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_W3C = TraceContextTextMapPropagator()
_HEADERS = ("traceparent", "tracestate")


class Tracing:
    """`endpoint` is an OTLP collector's gRPC address, http:// for plain text; None records nothing."""

    def __init__(self, endpoint: str | None) -> None:
        self._provider = None if endpoint is None else _exporting_to(endpoint)
        self._tracer: Tracer = NoOpTracer() if self._provider is None else self._provider.get_tracer("autoglm_gateway")

    @contextmanager
    def request(self, name: str, headers: Mapping[str, str]) -> Generator[Span, None, None]:
        """The span of a whole request, a child of the caller's if `headers` name one. An error is the span's status."""
        carrier = {key: headers[key] for key in _HEADERS if key in headers}
        # An empty context, not the current one: a task may inherit the context of the connection's request before.
        parent = _W3C.extract(carrier, Context())
        with self._tracer.start_as_current_span(name, context=parent, kind=SpanKind.SERVER) as span:
            yield span

    @contextmanager
    def step(self, name: str, kind: SpanKind = SpanKind.INTERNAL) -> Generator[Span, None, None]:
        with self._tracer.start_as_current_span(name, kind=kind) as span:
            yield span

    def close(self) -> None:
        """Send what is still to be sent."""
        if self._provider is not None:
            self._provider.shutdown()


def _exporting_to(endpoint: str) -> TracerProvider:
    # Imported late: a third of the gateway's own start, for those who want no spans.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": "autoglm-gateway"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return provider


def current_trace() -> Mapping[str, str]:
    """`traceparent`, and `tracestate` if there is one, of what the current task works on; empty without a trace."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return carrier


def mark_failed(code: str) -> None:
    """The current span ended in an error of this code."""
    trace.get_current_span().set_status(Status(StatusCode.ERROR, code))

"""OpenTelemetry spans of a request, and its W3C trace context on the way to Triton.

Without an endpoint no span is recorded, and a caller's own `traceparent` is passed on as it came.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NoOpTracer, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from autoglm_protocol.steps import Steps
from autoglm_protocol.tensors import AUTOGLM_PHONE

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

_W3C = TraceContextTextMapPropagator()
_HEADERS = ("traceparent", "tracestate")


class Tracing:
    """`endpoint` is an OTLP collector's gRPC address, http:// for plain text; None records nothing."""

    def __init__(self, endpoint: str | None) -> None:
        self._provider: TracerProvider | None = None
        self._tracer: Tracer = NoOpTracer()
        self._triton: Tracer = NoOpTracer()
        if endpoint is not None:
            processor = _exporting_to(endpoint)
            self._provider = _provider("autoglm-gateway", processor)
            self._tracer = self._provider.get_tracer("autoglm_gateway")
            self._triton = _provider("autoglm-triton", processor).get_tracer("autoglm_backend")

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

    def add_steps(self, steps: Steps, *, sent_ns: int) -> None:
        """Spans of what Triton did, under the current span. sent_ns: when the request went there, on our clock."""
        span = trace.get_current_span()
        shift_ns = _shift_ns(steps, sent_ns, time.time_ns())
        whole = self._triton.start_span(
            AUTOGLM_PHONE.model,
            context=trace.set_span_in_context(span),
            kind=SpanKind.SERVER,
            start_time=steps.start_ns + shift_ns,
        )
        inside = trace.set_span_in_context(whole)
        for step in steps.steps:
            part = self._triton.start_span(
                step.name, context=inside, attributes=step.attributes, start_time=step.start_ns + shift_ns
            )
            if step.first_token_ns is not None:
                part.add_event("first_token", timestamp=step.first_token_ns + shift_ns)
            part.end(step.end_ns + shift_ns)
        whole.end(steps.end_ns + shift_ns)

    def close(self) -> None:
        """Send what is still to be sent."""
        if self._provider is not None:
            self._provider.shutdown()


def _exporting_to(endpoint: str) -> SpanProcessor:
    # Imported late, as below: a third of the gateway's own start, for those who want no spans.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint))


def _provider(service: str, processor: SpanProcessor) -> TracerProvider:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    # `Tracing.close` ends the processor, which all providers share.
    provider = TracerProvider(resource=Resource.create({"service.name": service}), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider


def _shift_ns(steps: Steps, sent_ns: int, received_ns: int) -> int:
    """What makes Triton's times fit between ours where its machine has another clock; 0 where they do."""
    if sent_ns <= steps.start_ns and steps.end_ns <= received_ns:
        return 0
    slack_ns = max(0, (received_ns - sent_ns) - (steps.end_ns - steps.start_ns))
    return sent_ns + slack_ns // 2 - steps.start_ns


def current_trace() -> Mapping[str, str]:
    """`traceparent`, and `tracestate` if there is one, of what the current task works on; empty without a trace."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return carrier


def is_traced() -> bool:
    """Whether spans of the current task's request are recorded."""
    return trace.get_current_span().is_recording()


def mark_failed(code: str) -> None:
    """The current span ended in an error of this code."""
    trace.get_current_span().set_status(Status(StatusCode.ERROR, code))

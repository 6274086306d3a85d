"""The gateway's Prometheus metrics, under the names that vLLM made common where one exists.

Gauges are read when the page is asked for; a request's counters and histograms are touched through RequestMetrics.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from autoglm_gateway.graph_metrics import GraphMetrics
from autoglm_protocol.errors import AutoglmError
from autoglm_protocol.events import Cancelled, Failed, Finished, StreamEvent, TokenDelta

_TTFT_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
_ITL_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0)
_E2E_S = (0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0)


class Metrics:
    """One registry per gateway, so that two in one process do not meet. `model` is the canonical served name."""

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        labels, values = ("model_name",), (model,)

        def gauge(name: str, help: str) -> Gauge:
            return Gauge(name, help, labels, registry=self.registry).labels(*values)

        def histogram(name: str, help: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, help, labels, registry=self.registry, buckets=buckets).labels(*values)

        def counter(name: str, help: str) -> Counter:
            return Counter(name, help, labels, registry=self.registry).labels(*values)

        self.running = gauge("vllm:num_requests_running", "Requests that are generating.")
        self.waiting = gauge("vllm:num_requests_waiting", "Requests that wait for a place or for their first event.")
        self.kv_cache_usage = gauge("vllm:kv_cache_usage_perc", "Share of the KV cache in use, 0 to 1, from Triton.")
        self.ttft_s = histogram("vllm:time_to_first_token_seconds", "Arrival to first token.", _TTFT_S)
        self.itl_s = histogram("vllm:inter_token_latency_seconds", "Time between tokens.", _ITL_S)
        self.e2e_s = histogram("vllm:e2e_request_latency_seconds", "Arrival to last token.", _E2E_S)
        self.queue_s = histogram("vllm:request_queue_time_seconds", "Wait for a place in the gateway.", _E2E_S)
        self.prompt_tokens = counter("vllm:prompt_tokens", "Prompt tokens of finished requests.")
        self.generation_tokens = counter("vllm:generation_tokens", "Generated tokens.")
        self._success = Counter(
            "vllm:request_success", "Finished requests.", ("model_name", "finished_reason"), registry=self.registry
        )
        self._failures = Counter(
            "autoglm_gateway_request_failures", "Requests that ended in an error.", ("code",), registry=self.registry
        )
        self.cancelled = Counter(
            "autoglm_gateway_requests_cancelled", "Requests whose caller went away.", registry=self.registry
        )
        self.unknown_fields = Counter(
            "autoglm_gateway_unknown_fields", "Top-level request fields nobody knows.", registry=self.registry
        )
        self.cache_hits = Counter(
            "autoglm_gateway_response_cache_hits", "Answers that came from the cache.", registry=self.registry
        )
        self.cache_misses = Counter(
            "autoglm_gateway_response_cache_misses", "Cacheable requests that did not.", registry=self.registry
        )
        self.http_requests = Counter(
            "http_requests", "HTTP answers.", ("handler", "method", "status"), registry=self.registry
        )
        self.grpc_requests = Counter("grpc_requests", "gRPC answers.", ("method", "code"), registry=self.registry)
        self.graph = GraphMetrics(self.registry, model)
        self._model = model

    def succeeded(self, finish_reason: str) -> None:
        self._success.labels(self._model, finish_reason).inc()

    def failed(self, error: AutoglmError) -> None:
        self._failures.labels(error.code).inc()

    def page(self) -> bytes:
        return generate_latest(self.registry)


class RequestMetrics:
    """What one request adds. `observe` sees each event once; one that generates nothing adds its failure at most."""

    def __init__(
        self, metrics: Metrics, *, generates: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._metrics = metrics
        self._generates = generates
        self._clock = clock
        self._arrived_s = clock()
        self._last_token_s: float | None = None

    def placed(self) -> None:
        self._metrics.queue_s.observe(self._clock() - self._arrived_s)

    def observe(self, event: StreamEvent) -> None:
        if isinstance(event, TokenDelta):
            if event.token_ids and self._generates:
                self._tokens(len(event.token_ids))
        elif isinstance(event, Finished) and self._generates:
            self._metrics.e2e_s.observe(self._clock() - self._arrived_s)
            self._metrics.prompt_tokens.inc(event.usage.prompt_tokens)
            self._metrics.succeeded(event.finish_reason.value)
            self._metrics.graph.observe(event)
        elif isinstance(event, Failed):
            self._metrics.failed(event.error)
        elif isinstance(event, Cancelled):
            self._metrics.cancelled.inc()

    def _tokens(self, count: int) -> None:
        now_s = self._clock()
        if self._last_token_s is None:
            self._metrics.ttft_s.observe(now_s - self._arrived_s)
        else:
            # A delta carries every token since the last one: its time is theirs in equal parts.
            self._metrics.itl_s.observe((now_s - self._last_token_s) / count)
        self._last_token_s = now_s
        self._metrics.generation_tokens.inc(count)

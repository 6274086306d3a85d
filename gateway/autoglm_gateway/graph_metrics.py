"""What the dynamic graph spared and spent: the numbers of every answer's `dynamic_graph` as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from prometheus_client import CollectorRegistry, Counter, Histogram

from autoglm_protocol.events import Finished

_KV_BYTES = tuple(float(1 << power) for power in range(16, 36, 2))  # 64 KiB to 16 GiB
_ENCODERS = ("vision", "speech")


class GraphMetrics:
    """Counts the report of each answer once. Work that the response cache spared is not counted again."""

    def __init__(self, registry: CollectorRegistry, model: str) -> None:
        def counter(name: str, help: str) -> Counter:
            return Counter(name, help, ("model_name",), registry=registry).labels(model)

        def labelled(name: str, help: str, label: str) -> Counter:
            return Counter(name, help, ("model_name", label), registry=registry)

        self._model = model
        self._draft_tokens = counter("vllm:spec_decode_num_draft_tokens", "Tokens that shallow layers guessed.")
        self._accepted_tokens = counter("vllm:spec_decode_num_accepted_tokens", "Guesses that all layers confirmed.")
        self._cache_queries = counter("vllm:prefix_cache_queries", "Prompt tokens looked up in the prefix cache.")
        self._cache_hits = counter("vllm:prefix_cache_hits", "Prompt tokens that the prefix cache spared.")
        self._layer_steps = counter("autoglm_gateway_layer_steps", "Layers run, summed over every token.")
        self._tokens = labelled("autoglm_gateway_tokens", "Generated tokens by the layers they needed.", "layers")
        self._exits = labelled("autoglm_gateway_exit_mode_requests", "Answers by exit mode.", "exit")
        self._encoders = Counter(
            "autoglm_gateway_encoder_requests",
            "Answers by what became of each encoder: run, skipped, or cached (every item was known).",
            ("model_name", "encoder", "outcome"),
            registry=registry,
        )
        self._kv_bytes = Histogram(
            "autoglm_gateway_request_kv_bytes",
            "Most memory that the keys and values of a request took.",
            ("model_name",),
            registry=registry,
            buckets=_KV_BYTES,
        ).labels(model)

    def observe(self, event: Finished) -> None:
        """Keys that a backend does not report are left out."""
        graph = event.dynamic_graph
        if graph.get("cached"):
            return
        self._cache_queries.inc(event.usage.prompt_tokens)
        self._cache_hits.inc(event.usage.cached_tokens)
        self._draft_tokens.inc(graph.get("drafts_proposed", 0))
        self._accepted_tokens.inc(graph.get("drafts_accepted", 0))
        self._layer_steps.inc(graph.get("layer_steps", 0))
        for layers, count in cast("Mapping[str, int]", graph.get("layers_run", {})).items():
            self._tokens.labels(self._model, layers).inc(count)
        if "exit_mode" in graph:
            self._exits.labels(self._model, graph["exit_mode"]).inc()
        if "kv_bytes" in graph:
            self._kv_bytes.observe(graph["kv_bytes"])
        if "encoders_run" in graph:
            for encoder in _ENCODERS:
                self._encoders.labels(self._model, encoder, _outcome(graph, encoder)).inc()


def _outcome(graph: Mapping[str, Any], encoder: str) -> str:
    if encoder in graph["encoders_run"]:
        return "run"
    return "skipped" if encoder in graph["encoders_skipped"] else "cached"

"""The engine's load and counts on Triton's metrics page, kept up by a thread."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from autoglm_backend import triton_io
from autoglm_backend.engine.service import DecoderService
from autoglm_backend.engine.stats import EngineStats

PERIOD_S = 0.2

# Metric, field of EngineStats, description.
_GAUGES = (
    ("autoglm_requests_running", "num_running", "Sequences that the decoder works on"),
    ("autoglm_requests_waiting", "num_waiting", "Sequences that wait for the decoder"),
    ("autoglm_kv_usage_ratio", "kv_usage", "Share of the key/value cache that is in use"),
    ("autoglm_kv_bytes", "kv_bytes", "Key/value memory that live requests own"),
    ("autoglm_kv_bytes_peak", "kv_bytes_peak", "The most key/value memory that live requests owned"),
    ("autoglm_certified_active", "certified_active", "1 while certified exits are served"),
)
_COUNTERS = (
    ("autoglm_layer_steps_total", "layer_steps", "Layers run, summed over every token"),
    ("autoglm_draft_tokens_total", "drafts_proposed", "Tokens that shallow layers guessed"),
    ("autoglm_accepted_tokens_total", "drafts_accepted", "Guesses that all layers confirmed"),
    ("autoglm_prefix_cache_queries_total", "prefix_queries", "Prompt tokens looked up in the prefix cache"),
    ("autoglm_prefix_cache_hits_total", "prefix_hits", "Prompt tokens that the prefix cache spared"),
    ("autoglm_preemptions_total", "num_preemptions", "Sequences that lost their key/value memory to others"),
    ("autoglm_shadow_checked_total", "shadow_checked", "Certified answers run again at full depth"),
    ("autoglm_shadow_agreed_total", "shadow_agreed", "Of these, those that were the same"),
)


class DecoderMetrics:
    def __init__(self, service: DecoderService) -> None:
        self._service = service
        self._gauges = {field: triton_io.Gauge(name, help) for name, field, help in _GAUGES}
        self._counters = {field: triton_io.Counter(name, help) for name, field, help in _COUNTERS}
        self._tokens = triton_io.Counter(
            "autoglm_tokens_total", "Generated tokens by the decoder layers they needed", "layers"
        )
        for counter in self._counters.values():
            counter.declare("")
        self._tokens.declare(*(str(depth) for depth in (*service.exits, service.config.text.num_layers)))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="decoder-metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        for metric in (*self._gauges.values(), *self._counters.values(), self._tokens):
            metric.close()

    def _loop(self) -> None:
        shown: EngineStats | None = None
        while True:
            now = self._service.stats()
            if now != shown:
                self._show(now, shown)
                shown = now
            if self._stopping.wait(PERIOD_S):
                return

    def _show(self, now: EngineStats, shown: EngineStats | None) -> None:
        for field, gauge in self._gauges.items():
            gauge.set(float(getattr(now, field)))
        for field, counter in self._counters.items():
            counter.add(amount=getattr(now, field) - (getattr(shown, field) if shown else 0))
        before: Mapping[int, int] = shown.tokens_by_depth if shown else {}
        for depth, count in now.tokens_by_depth.items():
            self._tokens.add(str(depth), count - before.get(depth, 0))

"""What the Grafana dashboards show: every panel as a title, a unit and its queries.

`$release` stands for the labels that choose one release; Grafana puts its variables there.
"""

from __future__ import annotations

from dataclasses import dataclass

# a gateway that reads Triton's page shows these once more, with the label triton
_KV_USAGE = 'max by (pod) (autoglm_kv_usage_ratio{$release,triton=""})'
_ENCODERS = ',model=~".*_encoder"'
_FAILURES = "autoglm_gateway_request_failures_total{$release}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """PromQL, and how its series are called: Grafana's `{{label}}` syntax."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """`unit` is one of Grafana's; `help` says what to do about it."""

    title: str
    unit: str
    queries: tuple[Query, ...]
    help: str = ""
    is_stacked: bool = False
    max_value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """`rows` maps a row's title to its panels."""

    name: str
    title: str
    rows: dict[str, tuple[Panel, ...]]


def _one(title: str, unit: str, expr: str, legend: str, **more: object) -> Panel:
    return Panel(title=title, unit=unit, queries=(Query(expr=expr, legend=legend),), **more)  # pyright: ignore


def _quantiles(title: str, metric: str, help: str, *quantiles: float) -> Panel:
    return Panel(
        title=title,
        unit="s",
        help=help,
        queries=tuple(
            Query(
                expr=f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket{{$release}}[$__rate_interval])))",
                legend=f"p{100 * q:g}",
            )
            for q in quantiles
        ),
    )


def _rate(metric: str, by: str = "", where: str = "") -> str:
    return f"sum {f'by ({by}) ' if by else ''}(rate({metric}{{$release{where}}}[$__rate_interval]))"


def _share(part: str, whole: str) -> str:
    return f"{part} / {whole}"


SERVING = Dashboard(
    name="serving",
    title="AutoGLM-Phone / Serving",
    rows={
        "Demand": (
            Panel(
                title="Requests in flight",
                unit="short",
                is_stacked=True,
                help="The autoscaler's signal. Waiting: in the gateway's queue, or sent and without a first token.",
                queries=(
                    Query(expr="sum(vllm:num_requests_running{$release})", legend="running"),
                    Query(expr="sum(vllm:num_requests_waiting{$release})", legend="waiting"),
                ),
            ),
            _one("HTTP answers", "reqps", _rate("http_requests_total", "status", ',method="POST"'), "{{status}}"),
            _one("Failures by code", "reqps", f"sum by (code) (rate({_FAILURES}[$__rate_interval]))", "{{code}}"),
            Panel(
                title="Triton replicas",
                unit="short",
                help="Up as any gateway sees it; in flight as they spread over them.",
                queries=(
                    Query(
                        expr="count(max by (triton) (autoglm_gateway_replica_up{$release}) == 1) or vector(0)",
                        legend="up",
                    ),
                    Query(
                        expr="sum by (triton) (autoglm_gateway_replica_outstanding{$release})", legend="at {{triton}}"
                    ),
                ),
            ),
        ),
        "Latency": (
            _quantiles(
                "Time to first token",
                "vllm:time_to_first_token_seconds",
                "Queue, media, encoders and prefill.",
                0.5,
                0.95,
                0.99,
            ),
            _quantiles("Time between tokens", "vllm:inter_token_latency_seconds", "One decode step.", 0.5, 0.95, 0.99),
            _quantiles("Whole answer", "vllm:e2e_request_latency_seconds", "Arrival to last token.", 0.5, 0.95),
            _quantiles("Wait for a place", "vllm:request_queue_time_seconds", "In the gateway's queue.", 0.5, 0.95),
        ),
        "Work": (
            Panel(
                title="Tokens",
                unit="short",
                help="Per second, over all replicas.",
                queries=(
                    Query(expr=_rate("vllm:generation_tokens_total"), legend="generated"),
                    Query(expr=_rate("vllm:prompt_tokens_total"), legend="prompt"),
                ),
            ),
            _one(
                "Finish reasons", "reqps", _rate("vllm:request_success_total", "finished_reason"), "{{finished_reason}}"
            ),
            Panel(
                title="Caches",
                unit="percentunit",
                max_value=1,
                help="Prompt tokens and whole answers that cost nothing.",
                queries=(
                    Query(
                        expr=_share(_rate("vllm:prefix_cache_hits_total"), _rate("vllm:prefix_cache_queries_total")),
                        legend="prefix",
                    ),
                    Query(
                        expr=f"{_rate('autoglm_gateway_response_cache_hits_total')} / "
                        f"({_rate('autoglm_gateway_response_cache_hits_total')} "
                        f"+ {_rate('autoglm_gateway_response_cache_misses_total')})",
                        legend="answers",
                    ),
                ),
            ),
            Panel(
                title="Left or sent again",
                unit="reqps",
                help="Callers that went away; requests that a second Triton took.",
                queries=(
                    Query(expr=_rate("autoglm_gateway_requests_cancelled_total"), legend="callers gone"),
                    Query(expr=_rate("autoglm_gateway_retries_total"), legend="retries"),
                ),
            ),
        ),
        "Dynamic graph": (
            _one(
                "Layers that tokens needed",
                "short",
                _rate("autoglm_gateway_tokens_total", "layers"),
                "{{layers}} layers",
                is_stacked=True,
                help="Tokens per second by depth.",
            ),
            _one(
                "Layers run for a token",
                "short",
                _share(_rate("autoglm_gateway_layer_steps_total"), _rate("autoglm_gateway_tokens_total")),
                "mean",
                help="All that was run, prompts and drafts included, for each token that came out.",
            ),
            _one(
                "Drafts accepted",
                "percentunit",
                _share(
                    _rate("vllm:spec_decode_num_accepted_tokens_total"),
                    _rate("vllm:spec_decode_num_draft_tokens_total"),
                ),
                "accepted",
                max_value=1,
            ),
            _one(
                "Encoders",
                "reqps",
                _rate("autoglm_gateway_encoder_requests_total", "encoder, outcome"),
                "{{encoder}} {{outcome}}",
            ),
        ),
        "Triton": (
            _one(
                "KV cache in use",
                "percentunit",
                _KV_USAGE,
                "{{pod}}",
                max_value=1,
            ),
            Panel(
                title="In the decoder",
                unit="short",
                queries=(
                    Query(expr='sum(autoglm_requests_running{$release,triton=""})', legend="running"),
                    Query(expr='sum(autoglm_requests_waiting{$release,triton=""})', legend="waiting"),
                ),
            ),
            _one(
                "Model failures",
                "reqps",
                _rate("nv_inference_request_failure", "model, reason") + " > 0",
                "{{model}} {{reason}}",
            ),
            _one(
                "Encoder time",
                "s",
                f"{_rate('nv_inference_compute_infer_duration_us', 'model', _ENCODERS)} / 1e6 / "
                f"{_rate('nv_inference_request_success', 'model', _ENCODERS)}",
                "{{model}}",
            ),
        ),
    },
)

_GPU = "$dcgm_release"

GPU = Dashboard(
    name="gpu",
    title="AutoGLM-Phone / GPUs",
    rows={
        "Use": (
            _one("GPU busy", "percent", f"DCGM_FI_DEV_GPU_UTIL{{{_GPU}}}", "{{Hostname}} GPU {{gpu}}", max_value=100),
            _one(
                "Tensor cores busy",
                "percentunit",
                f"DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{{{_GPU}}}",
                "{{Hostname}} GPU {{gpu}}",
                max_value=1,
            ),
            _one(
                "Memory traffic",
                "percentunit",
                f"DCGM_FI_PROF_DRAM_ACTIVE{{{_GPU}}}",
                "{{Hostname}} GPU {{gpu}}",
                max_value=1,
                help="Decoding is bound by this one.",
            ),
            _one(
                "Memory in use",
                "percentunit",
                f"DCGM_FI_DEV_FB_USED{{{_GPU}}} / (DCGM_FI_DEV_FB_USED{{{_GPU}}} + DCGM_FI_DEV_FB_FREE{{{_GPU}}})",
                "{{Hostname}} GPU {{gpu}}",
                max_value=1,
            ),
        ),
        "Health": (
            _one("Temperature", "celsius", f"DCGM_FI_DEV_GPU_TEMP{{{_GPU}}}", "{{Hostname}} GPU {{gpu}}"),
            _one("Power", "watt", f"DCGM_FI_DEV_POWER_USAGE{{{_GPU}}}", "{{Hostname}} GPU {{gpu}}"),
            _one("SM clock", "rotmhz", f"DCGM_FI_DEV_SM_CLOCK{{{_GPU}}}", "{{Hostname}} GPU {{gpu}}"),
            _one("Last Xid error", "none", f"DCGM_FI_DEV_XID_ERRORS{{{_GPU}}}", "{{Hostname}} GPU {{gpu}}"),
        ),
        "What it buys": (
            _one(
                "Tokens per second and GPU",
                "short",
                f"{_rate('vllm:generation_tokens_total')} / count(DCGM_FI_DEV_GPU_UTIL{{{_GPU}}})",
                "generated",
            ),
            _one(
                "Energy of a token",
                "joule",
                f"sum(DCGM_FI_DEV_POWER_USAGE{{{_GPU}}}) / {_rate('vllm:generation_tokens_total')}",
                "joules",
            ),
            _one(
                "KV cache in use",
                "percentunit",
                _KV_USAGE,
                "{{pod}}",
                max_value=1,
            ),
        ),
    },
)

DASHBOARDS = (SERVING, GPU)

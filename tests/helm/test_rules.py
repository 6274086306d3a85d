"""Alerts and the autoscaler's queries, on synthetic series, by Prometheus's own tool."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.helm.chart import merged, of_kind, render
from tests.helm.promql import EVERYTHING, all_expressions, scaling_expressions
from tests.helm.variants import VARIANTS

RELEASE = 'namespace="ai",app_kubernetes_io_instance="phone"'
OTHER = 'namespace="ai",app_kubernetes_io_instance="other"'
TRITON_POD = 'namespace="ai",container="triton",pod="phone-autoglm-phone-triton-7d-x"'
DCGM = 'exported_namespace="ai",exported_pod="phone-autoglm-phone-triton-7d-x",gpu="0"'
HPA = 'namespace="ai",horizontalpodautoscaler="keda-hpa-phone-autoglm-phone-triton"'

Series = dict[str, str]


def up(value: int, release: str = RELEASE, what: str = "up") -> Series:
    """Two gateways that see one Triton."""
    return {
        f'autoglm_gateway_replica_{what}{{{release},pod="{pod}",triton="10.0.0.1:8001"}}': f"{value}x90" for pod in "ab"
    }


def first_tokens(per_min: int, slow_per_min: int) -> Series:
    name = "vllm:time_to_first_token_seconds"
    return {
        f'{name}_bucket{{{RELEASE},le="2.5"}}': f"0+{per_min - slow_per_min}x90",
        f"{name}_count{{{RELEASE}}}": f"0+{per_min}x90",
    }


def inter_token(le: str) -> Series:
    name = f"vllm:inter_token_latency_seconds_bucket{{{RELEASE}"
    return {f'{name},le="0.05"}}': "0x90" if le != "0.05" else "0+60x90", f'{name},le="{le}"}}': "0+60x90"} | {
        f'{name},le="+Inf"}}': "0+60x90"
    }


def failures(code: str, per_min: int) -> Series:
    return {
        f'autoglm_gateway_request_failures_total{{{RELEASE},code="{code}"}}': f"0+{per_min}x90",
        f'vllm:request_success_total{{{RELEASE},finished_reason="stop"}}': "0+100x90",
    }


def http(refused_per_min: int) -> Series:
    posts = f'http_requests_total{{{RELEASE},method="POST",status='
    return {f'{posts}"200"}}': "0+100x90", f'{posts}"429"}}': f"0+{refused_per_min}x90"}


def waiting(number: int) -> Series:
    return {f"vllm:num_requests_waiting{{{RELEASE}}}": f"{number}x90"}


def memory(used: int) -> Series:
    return {
        f"container_memory_working_set_bytes{{{TRITON_POD}}}": f"{used}x90",
        f'kube_pod_container_resource_limits{{{TRITON_POD},resource="memory"}}': "100x90",
    }


def scaled(desired: int) -> Series:
    return {
        f"kube_horizontalpodautoscaler_status_desired_replicas{{{HPA}}}": f"{desired}x90",
        f"kube_horizontalpodautoscaler_spec_max_replicas{{{HPA}}}": "16x90",
    }


def gpu_memory(free: int) -> Series:
    return {f"DCGM_FI_DEV_FB_USED{{{DCGM}}}": "80000x90", f"DCGM_FI_DEV_FB_FREE{{{DCGM}}}": f"{free}x90"}


# alert: series under which it fires, and series under which it must not
CASES: dict[str, tuple[Series, Series]] = {
    "AutoglmFirstTokenSlow": (first_tokens(100, 40), first_tokens(100, 4)),
    "AutoglmTokensSlow": (inter_token("0.5"), inter_token("0.05")),
    "AutoglmErrors": (failures("internal_error", 5), failures("invalid_value", 50)),
    "AutoglmRequestsRefused": (http(10), http(2)),
    "AutoglmQueueLong": (waiting(9) | up(1), waiting(7) | up(1)),
    "AutoglmDrainTooShort": (failures("server_is_shutting_down", 1), failures("server_is_shutting_down", 0)),
    "AutoglmNoTritonReady": (up(0), up(1)),
    "AutoglmTritonDown": (up(0), up(1)),
    "AutoglmTritonHung": (up(1, what="hung"), up(0, what="hung")),
    "AutoglmGatewayMissing": (
        {f"vllm:num_requests_running{{{OTHER}}}": "0x90"},
        {f"vllm:num_requests_running{{{RELEASE}}}": "0x90"},
    ),
    "AutoglmTritonUnread": (
        up(1) | {f"autoglm_requests_running{{{OTHER}}}": "0x90"},
        up(1) | {f"autoglm_requests_running{{{RELEASE}}}": "0x90"},
    ),
    "AutoglmKvCacheFull": (
        {f'autoglm_kv_usage_ratio{{{RELEASE},pod="t"}}': "0.97x90"},
        {f'autoglm_kv_usage_ratio{{{RELEASE},pod="t"}}': "0.9x90"},
    ),
    "AutoglmModelFailures": (
        {f'nv_inference_request_failure{{{RELEASE},model="text_decoder",reason="BACKEND"}}': "0+6x90"},
        {f'nv_inference_request_failure{{{RELEASE},model="text_decoder",reason="CANCELED"}}': "0+60x90"},
    ),
    "AutoglmTritonRestarted": (
        {f"kube_pod_container_status_restarts_total{{{TRITON_POD}}}": "0x60 1x30"},
        {f"kube_pod_container_status_restarts_total{{{TRITON_POD}}}": "3x90"},
    ),
    "AutoglmTritonMemoryHigh": (memory(95), memory(80)),
    "AutoglmGpuXid": ({f"DCGM_FI_DEV_XID_ERRORS{{{DCGM}}}": "79x90"}, {f"DCGM_FI_DEV_XID_ERRORS{{{DCGM}}}": "0x90"}),
    "AutoglmGpuHot": ({f"DCGM_FI_DEV_GPU_TEMP{{{DCGM}}}": "90x90"}, {f"DCGM_FI_DEV_GPU_TEMP{{{DCGM}}}": "70x90"}),
    "AutoglmGpuMemoryFull": (gpu_memory(500), gpu_memory(8000)),
    "AutoglmAutoscalerAtItsLimit": (scaled(16) | waiting(3), scaled(16) | waiting(0)),
    "AutoglmAutoscalerBlind": (
        {f'kube_horizontalpodautoscaler_status_condition{{{HPA},condition="ScalingActive",status="false"}}': "1x90"},
        {f'kube_horizontalpodautoscaler_status_condition{{{HPA},condition="ScalingActive",status="false"}}': "0x90"},
    ),
}


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    return _write_rules(EVERYTHING, tmp_path)


def test_every_alert_has_its_cases(rules: Path):
    groups = yaml.safe_load(rules.read_text())["groups"]

    assert {rule["alert"] for group in groups for rule in group["rules"]} == CASES.keys()


def test_the_rules_are_well_formed(promtool: Path, rules: Path):
    run = subprocess.run([promtool, "check", "rules", rules], capture_output=True, text=True)

    assert run.returncode == 0, run.stdout + run.stderr


def test_each_alert_fires_when_it_should_and_only_then(promtool: Path, rules: Path, tmp_path: Path):
    """80 minutes of series for each; labels and texts are not compared, so one run serves all."""
    tests = [
        _alert_case(alert, series, fires)
        for alert, both in CASES.items()
        for series, fires in zip(both, (1, 0), strict=True)
    ]

    _promtool_test(promtool, tests, tmp_path, [rules.name])


def test_scaled_to_zero_no_ready_triton_is_no_alarm(promtool: Path, tmp_path: Path):
    values = merged(VARIANTS["scale to zero"], {"monitoring": {"rules": {"enabled": True}}})
    rules = _write_rules(values, tmp_path)

    _promtool_test(promtool, [_alert_case("AutoglmNoTritonReady", up(0), 0)], tmp_path, [rules.name])


def test_every_query_is_promql(promtool: Path, tmp_path: Path):
    group = {"name": "all", "rules": [{"record": f"q{i}", "expr": e} for i, (_, e) in enumerate(all_expressions())]}
    path = tmp_path / "queries.yaml"
    path.write_text(json.dumps({"groups": [group]}))

    run = subprocess.run([promtool, "check", "rules", path], capture_output=True, text=True)

    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("name", ["in-flight", "adapter"])
def test_the_signal_is_one_sum_over_gateways_of_what_runs_and_waits(name: str, promtool: Path, tmp_path: Path):
    series = {
        f'vllm:num_requests_{kind}{{namespace="{namespace}",app_kubernetes_io_instance="phone",pod="{pod}"}}': f"{n}x10"
        for kind, n in (("running", 5), ("waiting", 2))
        for pod in "ab"
        for namespace in ("ai", "elsewhere")
    }

    _value(_query(name), series, 14, promtool, tmp_path, at="5m")


@pytest.mark.parametrize(
    ("series", "value"),
    [
        ("_x20", 0),  # nothing was ever refused
        ("_x7 1x12", 1),  # the first refusal makes the series: no increase yet
        ("3x20", 0),  # old ones only
    ],
)
def test_the_first_refusal_starts_the_first_pod(series: str, value: float, promtool: Path, tmp_path: Path):
    counter = f'autoglm_gateway_request_failures_total{{code="backend_unavailable",{RELEASE}}}'

    _value(_query("refused"), {counter: series}, value, promtool, tmp_path, at="10m")


def _query(name: str) -> str:
    return dict(scaling_expressions())[name]


def _write_rules(values: dict[str, Any], folder: Path) -> Path:
    (found,) = of_kind(render(values), "PrometheusRule")
    path = folder / "rules.yaml"
    path.write_text(yaml.safe_dump(found["spec"]))
    return path


def _alert_case(alert: str, series: Series, fires: int) -> dict[str, Any]:
    expr = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)'
    return {
        "name": f"{alert}, firing {fires}",
        "interval": "1m",
        "input_series": [{"series": s, "values": v} for s, v in series.items()],
        "promql_expr_test": [{"expr": expr, "eval_time": "70m", "exp_samples": [{"labels": "{}", "value": fires}]}],
    }


def _value(expr: str, series: Series, value: float, promtool: Path, folder: Path, *, at: str) -> None:
    test = {
        "interval": "1m",
        "input_series": [{"series": s, "values": v} for s, v in series.items()],
        "promql_expr_test": [{"expr": expr, "eval_time": at, "exp_samples": [{"labels": "{}", "value": value}]}],
    }
    _promtool_test(promtool, [test], folder, [])


def _promtool_test(promtool: Path, tests: list[dict[str, Any]], folder: Path, rule_files: list[str]) -> None:
    path = folder / "tests.yaml"
    path.write_text(yaml.safe_dump({"rule_files": rule_files, "evaluation_interval": "1m", "tests": tests}))
    run = subprocess.run([promtool, "test", "rules", path], capture_output=True, text=True, cwd=folder)
    assert run.returncode == 0, run.stdout + run.stderr

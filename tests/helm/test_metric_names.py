import re

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.gateway.processes import Gateway
from tests.helm.chart import ROOT, render
from tests.helm.promql import all_expressions, metrics_in, scaling_expressions
from tests.helm.variants import VARIANTS

_RECORDED = [path.read_text().split() for path in (ROOT / "tests/helm/exported").glob("*.txt")]


@pytest.fixture(scope="session")
def exported(lonely_gateway: Gateway) -> set[str]:
    """Every name that a query can use: a histogram's three among them."""
    page = httpx.get(f"http://{lonely_gateway.http}/metrics").text
    families = re.findall(r"^# TYPE (\S+) (\w+)$", page, re.MULTILINE)
    names = {name for recorded in _RECORDED for name in recorded}
    for name, kind in families:
        names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return names


def test_every_query_names_metrics_that_are_exported(exported: set[str]):
    unknown = {where: metrics_in(expr) - exported for where, expr in all_expressions()}

    assert {where: names for where, names in unknown.items() if names} == {}


def test_every_query_names_some_metric():
    assert [where for where, expr in all_expressions() if not metrics_in(expr)] == []


def test_the_first_token_objective_is_a_bucket(lonely_gateway: Gateway):
    """`rate(..._bucket{le=...})` finds nothing between two buckets."""
    page = httpx.get(f"http://{lonely_gateway.http}/metrics").text
    buckets = {
        sample.labels["le"]
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "vllm:time_to_first_token_seconds_bucket"
    }
    (rules,) = [o for o in render(VARIANTS["keda"]) if o["kind"] == "PrometheusRule"]
    asked = re.findall(r'le="([^"]+)"', str(rules))

    assert asked
    assert set(asked) <= buckets


def test_an_endpoint_picker_finds_the_names_it_knows(lonely_gateway: Gateway):
    """Those of engine type vllm in the Gateway API inference extension."""
    page = httpx.get(f"http://{lonely_gateway.http}/metrics").text

    for name in ("vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc"):
        assert f"\n{name}{{" in page


def test_scaled_to_zero_a_gateway_lives_lists_its_model_and_counts_what_it_refuses(lonely_gateway: Gateway):
    base = f"http://{lonely_gateway.http}"
    body = {"model": "autoglm-phone-9b", "messages": [{"role": "user", "content": "Open WeChat"}]}

    refused = httpx.post(f"{base}/v1/chat/completions", json=body)

    assert httpx.get(f"{base}/health/live").status_code == 200
    assert "autoglm-phone-9b" in httpx.get(f"{base}/v1/models").text
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "backend_unavailable")
    assert int(refused.headers["retry-after"]) >= 1
    assert lonely_gateway.metric('autoglm_gateway_request_failures_total{code="backend_unavailable"}') >= 1
    assert any('code="backend_unavailable"' in expr for _, expr in scaling_expressions())

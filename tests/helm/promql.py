"""Every PromQL expression of the chart, and the metrics that one names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import yaml
from tests.helm.chart import FOLDER, of_kind, one, render
from tests.helm.variants import VARIANTS

_METRIC = re.compile(r"(?:vllm:|autoglm_|nv_|DCGM_|kube_|container_|http_requests|grpc_requests)[A-Za-z0-9_:]*")
# what Grafana puts there before it asks
_GRAFANA = {"$__rate_interval": "1m", "$namespace": "ai", "$release": "phone"}
EVERYTHING = VARIANTS["example 8x-h100"]


def metrics_in(expr: str) -> set[str]:
    # the autoscaler's __name__=~"vllm:num_requests_(running|waiting)"
    for prefix, alternatives in re.findall(r'__name__=~"([a-z:_]+)\(([a-z|]+)\)"', expr):
        expr += " " + " ".join(prefix + word for word in alternatives.split("|"))
        expr = expr.replace(f"{prefix}({alternatives})", "")
    return set(_METRIC.findall(expr))


def alert_expressions() -> Iterator[tuple[str, str]]:
    for rules in of_kind(render(EVERYTHING), "PrometheusRule"):
        for group in rules["spec"]["groups"]:
            for rule in group["rules"]:
                yield rule["alert"], rule["expr"]


def panel_expressions() -> Iterator[tuple[str, str]]:
    for path in sorted((FOLDER / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                expr = target["expr"]
                for variable, value in _GRAFANA.items():
                    expr = expr.replace(variable, value)
                yield f"{path.stem}: {panel['title']}", expr


def scaling_expressions() -> Iterator[tuple[str, str]]:
    for scaled in of_kind(render(VARIANTS["scale to zero"]), "ScaledObject"):
        for trigger in scaled["spec"]["triggers"]:
            yield trigger["name"], trigger["metadata"]["query"]
    rules = one(render(VARIANTS["hpa"]), "ConfigMap", "phone-autoglm-phone-adapter-rules")["data"]["external.yaml"]
    for rule in yaml.safe_load(rules):
        yield "adapter", rule["metricsQuery"].replace("<<.LabelMatchers>>", 'namespace="ai"')


def all_expressions() -> list[tuple[str, str]]:
    return [*alert_expressions(), *panel_expressions(), *scaling_expressions()]

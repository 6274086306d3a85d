"""Who may reach whom, and what a network in front of the gateways is told."""

from __future__ import annotations

from typing import Any

from tests.helm.chart import GATEWAY, TRITON, Object, of_kind, one, render
from tests.helm.variants import VARIANTS

_CLIENTS = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "apps"}}}]
_PRIVATE = ["10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"]


def policy(name: str, values: dict[str, Any] | None = None) -> Object:
    return one(render(values), "NetworkPolicy", name)["spec"]


def components(rule: Object) -> list[str]:
    """Of this release, in a rule's peers."""
    peers = [*rule.get("from", []), *rule.get("to", [])]
    return [p["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for p in peers if "podSelector" in p]


def test_only_gateways_send_requests_to_triton():
    asking = [rule for rule in policy(TRITON)["ingress"] if {"port": "grpc"} in rule["ports"]]

    assert [components(rule) for rule in asking] == [["gateway"]]
    assert all(len(rule["from"]) == 1 for rule in asking)


def test_nobody_but_the_node_reaches_tritons_http_port():
    assert all({"port": "http"} not in rule["ports"] for rule in policy(TRITON)["ingress"])


def test_triton_reaches_nothing_but_dns():
    ports = [port["port"] for rule in policy(TRITON)["egress"] for port in rule["ports"]]

    assert set(ports) == {53}


def test_triton_may_fetch_weights_where_an_init_container_does():
    egress = policy(TRITON, VARIANTS["weights by init container"])["egress"]

    assert [{"port": 443}] in [rule["ports"] for rule in egress]


def test_media_come_from_public_addresses_only():
    blocks = [peer["ipBlock"] for rule in policy(GATEWAY)["egress"] for peer in rule.get("to", []) if "ipBlock" in peer]
    (v4,) = [block for block in blocks if block["cidr"] == "0.0.0.0/0"]

    assert set(_PRIVATE) <= set(v4["except"])


def test_named_clients_and_the_charts_tests_may_call_and_nobody_else():
    calling, metrics = policy(GATEWAY, {"networkPolicy": {"clients": _CLIENTS}})["ingress"]

    assert calling["from"][:-1] == _CLIENTS
    assert components(calling) == ["test"]
    assert metrics["ports"] == [{"port": "http"}]


def test_without_named_clients_everybody_may_call():
    (calling,) = policy(GATEWAY)["ingress"]

    assert "from" not in calling


def test_an_endpoint_picker_knows_what_the_gateways_metrics_are_called():
    objects = render(VARIANTS["inference pool"])
    (pool,) = of_kind(objects, "InferencePool")
    labels = one(objects, "Deployment", GATEWAY)["spec"]["template"]["metadata"]["labels"]

    assert pool["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert labels["inference.networking.k8s.io/engine-type"] == "vllm"

"""What `autoglm deploy preflight` says of clusters that lack one thing each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.recorded_cluster import items, node, recorded_cluster, resources

from autoglm_client.deploy.cluster import connect
from autoglm_client.deploy.findings import Finding, Level
from autoglm_client.deploy.helm import DEFAULT_CHART, Target
from autoglm_client.deploy.helm_library import HelmLibrary
from autoglm_client.deploy.look import Plan
from autoglm_client.deploy.preflight import preflight

GPU = "nvidia.com/gpu"
Check = Callable[..., list[Finding]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Preflight with these values, on a cluster whose answers differ by `changes` from one that is fine."""

    def run(values: dict[str, Any] | None = None, /, **changes: Any) -> list[Finding]:
        answers = {**_FINE, **changes.pop("paths", {}), **changes}
        target = Target(release="phone", namespace="ai")
        with recorded_cluster(answers, tmp_path) as kubeconfig:
            plan = Plan(
                cluster=connect(kubeconfig, None),
                helm=HelmLibrary(target),
                target=target,
                chart=DEFAULT_CHART,
                values=values or {},
                is_upgrade=False,
            )
            return preflight(plan)

    return run


_FINE: dict[str, Any] = {
    "/version": {"gitVersion": "v1.34.3"},
    "/api/v1": resources(
        ("services", "Service"),
        ("serviceaccounts", "ServiceAccount"),
        ("configmaps", "ConfigMap"),
        ("pods", "Pod"),
        ("pods/log", "Pod"),
    ),
    "/apis/apps/v1": resources(("deployments", "Deployment")),
    "/apis/policy/v1": resources(("poddisruptionbudgets", "PodDisruptionBudget")),
    "/apis/networking.k8s.io/v1": resources(("networkpolicies", "NetworkPolicy")),
    "/apis/autoscaling/v2": resources(("horizontalpodautoscalers", "HorizontalPodAutoscaler")),
    "/api/v1/namespaces/ai": {"metadata": {"name": "ai"}},
    "/api/v1/namespaces/ai/resourcequotas": items(),
    "/api/v1/namespaces/ai/pods": items(),
    "/api/v1/nodes": items(node("gpu-0", gpus=8, taints=(GPU,)), node("cpu-0")),
    "/api/v1/pods": items(),
    "/apis/storage.k8s.io/v1/storageclasses": items(),
}


def failures(findings: list[Finding]) -> list[str]:
    return [f"{f.subject}: {f.text} -> {f.cure}" for f in findings if f.level is Level.FAILURE]


def test_a_cluster_that_has_everything_has_no_failure(check: Check):
    findings = check()

    assert failures(findings) == []
    assert "8 of 8 nvidia.com/gpu are free, on 1 node" in [finding.text for finding in findings]


def test_a_cluster_without_gpus_needs_the_device_plugin(check: Check):
    (first, second) = failures(check(paths={"/api/v1/nodes": items(node("cpu-0"))}))

    assert first.startswith("capacity: no node offers nvidia.com/gpu -> install its device plugin")
    assert "0 of 1 pod" in second
    assert "Of 1 nodes: 1 no nvidia.com/gpu" in second


def test_pods_that_do_not_fit_name_every_reason(check: Check):
    nodes = items(
        node("small", gpus=1),
        node("tainted", gpus=8, taints=("maintenance",)),
        node("cordoned", gpus=8, unschedulable=True),
        node("cpu-0"),
    )

    (failure,) = failures(check({"triton": {"tensorParallelSize": 2}}, paths={"/api/v1/nodes": nodes}))

    for reason in ("1 too little nvidia.com/gpu free", "1 taint maintenance", "1 cordoned", "1 no nvidia.com/gpu"):
        assert reason in failure


def test_a_product_that_no_node_has_is_named(check: Check):
    (failure,) = failures(check({"triton": {"gpu": {"products": ["NVIDIA-H100"]}}}))

    assert "label nvidia.com/gpu.product is none of NVIDIA-H100" in failure


def test_gpus_of_other_releases_are_taken_and_own_ones_are_not(check: Check):
    def pod(release: str) -> dict[str, Any]:
        container = {"resources": {"limits": {GPU: "8"}}}
        labels = {"app.kubernetes.io/instance": release}
        spec = {"nodeName": "gpu-0", "containers": [container]}
        return {"metadata": {"name": release, "namespace": "ai", "labels": labels}, "spec": spec}

    assert failures(check(paths={"/api/v1/pods": items(pod("phone"))})) == []
    assert "too little nvidia.com/gpu free" in failures(check(paths={"/api/v1/pods": items(pod("other"))}))[0]


def test_kinds_that_the_cluster_does_not_know_say_who_brings_them(check: Check):
    values = {"monitoring": {"monitors": {"enabled": True}}}

    found = failures(check(values))

    assert [line.split(" (")[0] for line in found] == [
        "API groups: the cluster has no PodMonitor",
        "API groups: the cluster has no ServiceMonitor",
    ]
    assert "install the Prometheus operator" in found[0]


def test_missing_permissions_are_listed(check: Check):
    found = failures(check(may=lambda wanted: wanted["resource"] != "networkpolicies"))

    (failure,) = found
    assert "you may not, in namespace ai: create, patch, delete networkpolicies.networking.k8s.io" in failure


def test_a_namespace_that_one_may_not_make(check: Check):
    found = failures(check(paths={"/api/v1/namespaces/ai": 404}, may=lambda wanted: wanted["resource"] != "namespaces"))

    assert found == ["namespace: there is no ai, and you may not make it -> ask an administrator for it"]


def test_what_pod_security_refuses_is_passed_on(check: Check):
    refusal = (403, 'pods "x" is forbidden: violates PodSecurity "restricted:latest": hostPath volumes')

    found = failures(check(paths={"POST /api/v1/namespaces/ai/pods": refusal}))

    assert all("violates PodSecurity" in line and "pod-security.kubernetes.io/enforce" in line for line in found)
    assert len(found) == 2


def test_a_quota_that_is_too_small(check: Check):
    quota = {
        "metadata": {"name": "team"},
        "status": {"hard": {"requests.nvidia.com/gpu": "2"}, "used": {"requests.nvidia.com/gpu": "1"}},
    }
    paths = {"/api/v1/namespaces/ai/resourcequotas": items(quota)}

    assert failures(check(paths=paths)) == []
    (failure,) = failures(check({"triton": {"replicas": 2}}, paths=paths))
    assert "team leaves 1 of requests.nvidia.com/gpu, and this needs 2" in failure


def test_a_claim_that_is_not_there_lists_the_storage_classes(check: Check):
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    classes = items({"metadata": {"name": "fast", "annotations": default}}, {"metadata": {"name": "slow"}})
    values = {"weights": {"source": "pvc", "pvc": {"claimName": "weights"}}}

    (failure,) = failures(check(values, paths={"/apis/storage.k8s.io/v1/storageclasses": classes}))

    assert "there is no PersistentVolumeClaim weights" in failure
    assert "fast (default), slow" in failure


def test_a_secret_without_the_key(check: Check):
    values = {"gateway": {"redis": {"existingSecret": "redis"}}}
    paths = {"/api/v1/namespaces/ai/secrets/redis": {"data": {"uri": "eA=="}}}

    assert failures(check(values, paths=paths)) == ["secrets: Secret redis has no key url -> add it, or name another"]


def test_values_that_the_chart_refuses(check: Check):
    (failure,) = failures(check({"triton": {"replica": 2}}))

    assert failure.startswith("values: ")
    assert "replica" in failure


def test_an_old_kubernetes(check: Check):
    (failure,) = failures(check(paths={"/version": {"gitVersion": "v1.28.4"}}))

    assert "v1.28.4" in failure
    assert "the chart needs >=1.30.0-0" in failure


def test_what_may_not_be_looked_at_is_a_warning(check: Check):
    findings = check(paths={"/api/v1/nodes": (403, "nodes is forbidden")})

    assert failures(findings) == []
    assert [f.text for f in findings if f.level is Level.WARNING] == [
        "not looked at, for want of permission: nodes is forbidden"
    ]

"""Rollouts and evictions where every GPU is taken."""

from __future__ import annotations

import pytest
from tests.cluster.api import Object, apps_path, is_ready, pods_path
from tests.cluster.control_plane import ControlPlane
from tests.cluster.fleet import POOL
from tests.cluster.helm import Helm
from tests.cluster.values import release_values
from tests.helm.chart import RELEASE, TRITON


@pytest.fixture
def full(plane: ControlPlane, helm3: Helm, namespace: str, pool: str) -> str:
    """The namespace of a release that takes both nodes whole."""
    helm3.install(RELEASE, namespace, release_values(pool, replicas=2, tensor_parallel_size=8), "--wait")
    return namespace


def test_a_rollout_on_a_full_cluster_completes(plane: ControlPlane, full: str) -> None:
    before = {pod["metadata"]["name"] for pod in plane.api.pods(full)}
    plane.kubectl("-n", full, "rollout", "restart", f"deployment/{TRITON}")
    plane.kubectl("-n", full, "rollout", "status", f"deployment/{TRITON}", "--timeout=300s")
    after = {pod["metadata"]["name"] for pod in plane.api.wait_for_pods(full, 2)}
    assert not before & after


def test_a_rollout_takes_one_pod_at_a_time(plane: ControlPlane, full: str) -> None:
    available: list[int] = []

    def is_done(deployments: list[Object]) -> bool:
        (status,) = [d["status"] for d in deployments if d["metadata"]["name"] == TRITON]
        available.append(status.get("availableReplicas", 0))
        (generation,) = [d["metadata"]["generation"] for d in deployments if d["metadata"]["name"] == TRITON]
        return status["observedGeneration"] == generation and status.get("updatedReplicas") == 2 == available[-1]

    plane.kubectl("-n", full, "rollout", "restart", f"deployment/{TRITON}")
    plane.api.wait_for(apps_path(full), is_done)
    assert min(available) >= 1


def test_a_surge_on_a_full_cluster_would_wait_for_ever(
    plane: ControlPlane, helm3: Helm, namespace: str, pool: str
) -> None:
    """Why the chart's default is no surge."""
    rollout = {"maxSurge": 1, "maxUnavailable": 0, "progressDeadlineSeconds": 3}
    values = release_values(pool, replicas=2, tensor_parallel_size=8, triton={"rollout": rollout})
    helm3.install(RELEASE, namespace, values, "--wait")
    plane.kubectl("-n", namespace, "rollout", "restart", f"deployment/{TRITON}")

    def is_stuck(deployments: list[Object]) -> bool:
        return any(
            condition.get("reason") == "ProgressDeadlineExceeded"
            for deployment in deployments
            for condition in deployment["status"].get("conditions", [])
        )

    plane.api.wait_for(apps_path(namespace), is_stuck)


def test_the_budget_refuses_a_second_eviction_until_the_first_pod_is_replaced(
    plane: ControlPlane, full: str, pool: str
) -> None:
    first, second = plane.api.pods(full)
    # its replacement finds no node while this one takes no pods
    plane.kubectl("cordon", first["spec"]["nodeName"])
    assert plane.api.evict(full, first["metadata"]["name"]) == 201

    def one_is_left(pods: list[Object]) -> bool:
        return sum(map(is_ready, pods)) == 1 and len(pods) == 2

    selector = "app.kubernetes.io/component=triton"
    plane.api.wait_for(pods_path(full), one_is_left, labelSelector=selector)
    assert plane.api.evict(full, second["metadata"]["name"]) == 429

    plane.kubectl("uncordon", first["spec"]["nodeName"])
    plane.api.wait_for_pods(full, 2)
    plane.api.wait_until_evictable(full)
    assert plane.api.evict(full, second["metadata"]["name"]) == 201


def test_draining_a_node_moves_its_pods(plane: ControlPlane, helm3: Helm, namespace: str, pool: str) -> None:
    helm3.install(RELEASE, namespace, release_values(pool, replicas=4), "--wait")
    plane.kubectl("drain", f"{pool}-a", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=300s")
    pods = plane.api.wait_for_pods(namespace, 4)
    assert {pod["spec"]["nodeName"] for pod in pods} == {f"{pool}-b"}
    assert POOL in pods[0]["spec"]["nodeSelector"]

"""How Triton pods of several GPUs fill nodes: two nodes of eight."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.cluster.api import Object, apps_path, is_ready, node_of, pods_path
from tests.cluster.control_plane import ControlPlane
from tests.cluster.helm import Helm
from tests.cluster.values import release_values
from tests.helm.chart import RELEASE, TRITON

_TRITON = "app.kubernetes.io/component=triton"


def lacks_gpus(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c.get("reason") == "Unschedulable" and "nvidia.com/gpu" in c["message"] for c in conditions)


@pytest.mark.parametrize("tensor_parallel_size", [2, 4, 8])
def test_replicas_fill_nodes_to_the_last_gpu(
    plane: ControlPlane, helm3: Helm, namespace: str, pool: str, tensor_parallel_size: int
) -> None:
    fitting = 16 // tensor_parallel_size
    values = release_values(pool, replicas=fitting + 1, tensor_parallel_size=tensor_parallel_size)
    helm3.install(RELEASE, namespace, values)

    def settled(pods: list[Object]) -> bool:
        return sum(map(is_ready, pods)) == fitting and sum(map(lacks_gpus, pods)) == 1

    pods = plane.api.wait_for(pods_path(namespace), settled, labelSelector=_TRITON)
    per_node = Counter(node_of(pod) for pod in pods if node_of(pod))
    assert set(per_node.values()) == {8 // tensor_parallel_size}


def test_one_gpu_taken_makes_a_node_too_small_for_eight(
    plane: ControlPlane, helm3: Helm, namespace: str, pool: str
) -> None:
    helm3.install("small", namespace, release_values(pool, replicas=1), "--wait")
    helm3.install(RELEASE, namespace, release_values(pool, replicas=2, tensor_parallel_size=8))
    ours = f"{_TRITON},app.kubernetes.io/instance={RELEASE}"

    def one_runs_and_one_waits(pods: list[Object]) -> bool:
        return sum(map(is_ready, pods)) == 1 and sum(map(lacks_gpus, pods)) == 1

    plane.api.wait_for(pods_path(namespace), one_runs_and_one_waits, labelSelector=ours)
    helm3("uninstall", "small", "-n", namespace)
    pods = plane.api.wait_for(
        pods_path(namespace), lambda pods: len(pods) == 2 and all(map(is_ready, pods)), labelSelector=ours
    )
    assert len({node_of(pod) for pod in pods}) == 2


def test_a_triton_pod_takes_the_place_of_headroom(plane: ControlPlane, helm3: Helm, namespace: str, pool: str) -> None:
    values = release_values(pool, replicas=1, tensor_parallel_size=8, headroom={"replicas": 1})
    helm3.install(RELEASE, namespace, values, "--wait")
    plane.kubectl("-n", namespace, "scale", f"deployment/{TRITON}", "--replicas=2")
    pods = plane.api.wait_for_pods(namespace, 2)
    assert len({node_of(pod) for pod in pods}) == 2


def test_replicas_spread_over_zones(plane: ControlPlane, helm3: Helm, namespace: str, pool: str) -> None:
    helm3.install(RELEASE, namespace, release_values(pool, replicas=4), "--wait")
    zones = Counter(node_of(pod) for pod in plane.api.pods(namespace))
    assert set(zones.values()) == {2}


def test_no_triton_pod_lands_on_a_node_without_gpus(
    plane: ControlPlane, helm3: Helm, namespace: str, pool: str
) -> None:
    helm3.install(RELEASE, namespace, release_values(pool, replicas=2), "--wait")
    assert "cpu-0" not in {node_of(pod) for pod in plane.api.pods(namespace)}
    assert plane.api.get(f"{apps_path(namespace)}/{TRITON}")["status"]["readyReplicas"] == 2

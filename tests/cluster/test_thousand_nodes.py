"""A release of a thousand replicas on a thousand nodes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from tests.cluster.api import node_of
from tests.cluster.control_plane import ControlPlane
from tests.cluster.fleet import add_nodes, gpu_node, remove_nodes
from tests.cluster.helm import Helm
from tests.cluster.programs import CLUSTER
from tests.cluster.values import release_values
from tests.helm.chart import RELEASE

NODES = 1000
POOL = "thousand"


@pytest.fixture
def nodes(plane: ControlPlane) -> Iterator[float]:
    """Seconds until all of them were Ready."""
    if not CLUSTER.is_asked_for:
        pytest.skip("a thousand nodes take minutes: make test-cluster")
    started_s = time.monotonic()
    nodes = [gpu_node(f"{POOL}-{number}", gpus=8, pool=POOL, zone="abc"[number % 3]) for number in range(NODES)]
    add_nodes(plane, nodes, timeout_s=600)
    yield time.monotonic() - started_s
    remove_nodes(plane, nodes)


def test_every_node_gets_its_replica(plane: ControlPlane, helm3: Helm, namespace: str, nodes: float) -> None:
    started_s = time.monotonic()
    helm3.install(RELEASE, namespace, release_values(POOL, replicas=NODES, tensor_parallel_size=8))
    pods = plane.api.wait_for_pods(namespace, NODES, timeout_s=900)
    print(
        f"\n{NODES} nodes Ready after {nodes:.0f} s, {NODES} replicas Ready {time.monotonic() - started_s:.0f} s later"
    )
    assert len({node_of(pod) for pod in pods}) == NODES

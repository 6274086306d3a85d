"""The autoscaler follows recorded traffic, through a real controller and a real metrics API."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
from tests.cluster import traffic
from tests.cluster.api import Object, apps_path
from tests.cluster.control_plane import ControlPlane
from tests.cluster.helm import Helm
from tests.cluster.metrics_api import Replay, external_metrics
from tests.cluster.programs import CLUSTER
from tests.cluster.values import release_values
from tests.helm.chart import RELEASE, TRITON

TARGET = 4
MAX_REPLICAS = 4
GRACE_S = 3
"""The chart lets one pod go per grace period; this is the shortest that fits the drain of `release_values`."""
LATE_SAMPLES = 5
"""The autoscaler takes a sample a second; so late, on a busy machine, may its answer be seen."""


@pytest.fixture(scope="module")
def replay(plane: ControlPlane) -> Iterator[Replay]:
    if not CLUSTER.is_asked_for:
        pytest.skip("the traffic takes a minute: make test-cluster")
    with external_metrics(plane) as replay:
        yield replay


def wanted(in_flight: int) -> int:
    return min(max(math.ceil(in_flight / TARGET), 1), MAX_REPLICAS)


@pytest.mark.usefixtures("custom_resources_there")
def test_replicas_follow_the_traffic(
    plane: ControlPlane, helm3: Helm, namespace: str, pool: str, replay: Replay
) -> None:
    scaling = {
        "mode": "hpa",
        "minReplicas": 1,
        "maxReplicas": MAX_REPLICAS,
        "inFlightPerReplica": TARGET,
        "startupSeconds": 1,
        "scaleUpPods": MAX_REPLICAS,
        # longer than the grace period, as in the chart: Kubernetes takes back what it added within one at once
        "scaleDownStabilizationSeconds": 2 * GRACE_S,
    }
    values = release_values(
        pool,
        autoscaling=scaling,
        monitoring={"monitors": {"enabled": True}},
        triton={"terminationGracePeriodSeconds": GRACE_S},
    )
    helm3.install(RELEASE, namespace, values, "--wait")
    samples = traffic.recorded()
    # (how many samples the autoscaler had when it was seen, replicas that it wanted)
    seen: list[tuple[int, int]] = []

    def is_quiet_again(deployments: list[Object]) -> bool:
        (triton,) = [d for d in deployments if d["metadata"]["name"] == TRITON]
        replicas = triton["spec"]["replicas"]
        if not seen or seen[-1][1] != replicas:
            seen.append((replay.position, replicas))
        has_peaked = max(replicas for _, replicas in seen) == MAX_REPLICAS
        return has_peaked and replicas == 1 == triton["status"].get("readyReplicas")

    replay.start(samples)
    plane.api.wait_for(apps_path(namespace), is_quiet_again)

    print(f"\nin flight {samples}\n(samples, replicas) {seen}")
    for position, in_flight in enumerate(samples[: samples.index(max(samples)) + 1]):
        in_time = [replicas for had, replicas in seen if had <= position + LATE_SAMPLES]
        assert max(in_time) >= wanted(in_flight), f"too late for sample {position}: {seen}"
    falls = [earlier - later for (_, earlier), (_, later) in itertools.pairwise(seen) if later < earlier]
    assert set(falls) == {1}, f"not one pod per drain: {seen}"
    naive = [wanted(in_flight) for in_flight in samples]
    assert turns([replicas for _, replicas in seen]) < turns(naive), f"as restless as the traffic: {seen}"
    metric, selector = next(iter(replay.asked))
    assert (metric, selector) == ("autoglm_requests_in_flight", f"app_kubernetes_io_instance={RELEASE}")


def turns(replicas: list[int]) -> int:
    """How often growing becomes shrinking or the reverse."""
    steps = [later > earlier for earlier, later in itertools.pairwise(replicas) if later != earlier]
    return sum(earlier != later for earlier, later in itertools.pairwise(steps))

"""The autoscaler follows a recorded afternoon of traffic, through a real controller and a real metrics API."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
from tests.cluster.api import Object, apps_path
from tests.cluster.control_plane import ControlPlane
from tests.cluster.helm import Helm
from tests.cluster.metrics_api import Gauge, external_metrics
from tests.cluster.programs import CLUSTER
from tests.cluster.values import release_values
from tests.helm.chart import RELEASE, TRITON

TARGET = 4
MAX_REPLICAS = 4
# requests in flight: idle, a rise, a peak above what the limit allows, a dip, and the evening
TRAFFIC = (0, 3, 7, 40, 13, 10, 2, 0)


@pytest.fixture(scope="module")
def gauge(plane: ControlPlane) -> Iterator[Gauge]:
    if not CLUSTER.is_asked_for:
        pytest.skip("the traffic takes minutes: make test-cluster")
    with external_metrics(plane) as gauge:
        yield gauge


@pytest.mark.usefixtures("custom_resources_there")
def test_replicas_follow_the_traffic(plane: ControlPlane, helm3: Helm, namespace: str, pool: str, gauge: Gauge) -> None:
    scaling = {
        "mode": "hpa",
        "minReplicas": 1,
        "maxReplicas": MAX_REPLICAS,
        "inFlightPerReplica": TARGET,
        "startupSeconds": 1,
        "scaleUpPods": MAX_REPLICAS,
        # longer than the grace period, as in the chart: Kubernetes takes back what it added within one at once
        "scaleDownStabilizationSeconds": 20,
    }
    values = release_values(pool, autoscaling=scaling, monitoring={"monitors": {"enabled": True}})
    helm3.install(RELEASE, namespace, values, "--wait")
    seen: list[int] = []

    for in_flight in TRAFFIC:
        gauge.value = in_flight
        wanted = min(max(math.ceil(in_flight / TARGET), 1), MAX_REPLICAS)

        def is_there(deployments: list[Object], wanted: int = wanted) -> bool:
            (triton,) = [d for d in deployments if d["metadata"]["name"] == TRITON]
            replicas = triton["spec"]["replicas"]
            if not seen or seen[-1] != replicas:
                seen.append(replicas)
            return replicas == wanted == triton["status"].get("readyReplicas")

        # the chart lets one pod go per grace period, 17 s here
        plane.api.wait_for(apps_path(namespace), is_there, timeout_s=120)

    assert max(seen) == MAX_REPLICAS
    falls = [earlier - later for earlier, later in itertools.pairwise(seen) if later < earlier]
    assert set(falls) == {1}, f"not one pod per drain: {seen}"
    metric, selector = next(iter(gauge.asked))
    assert (metric, selector) == ("autoglm_requests_in_flight", f"app_kubernetes_io_instance={RELEASE}")

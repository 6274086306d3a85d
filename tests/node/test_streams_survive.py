"""The chart's promise: streams survive a rollout, a scale-down, an eviction and an upgrade. Nothing is simulated."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.cluster.control_plane import ControlPlane
from tests.cluster.helm import Helm
from tests.helm.chart import EXAMPLES, GATEWAY, RELEASE, TRITON, merged, render
from tests.node.drains import Drains
from tests.node.images import REPOSITORY, TAG, environment_volumes
from tests.node.node import NAMESPACE
from tests.node.streams import SteadyStreams, Tally

IMAGE = {"repository": REPOSITORY, "tag": TAG, "pullPolicy": "Never"}
MODEL = "autoglm-phone-9b"
READY_TIMEOUT_S = 600.0
# so many, and so long, that on two cores they outlive the chart's lag
LONG_STREAMS = 6
LONG_TOKENS = 6000


def values() -> dict[str, Any]:
    """The example for CPUs, twice Triton and twice the gateway; drains are the chart's."""
    environment = environment_volumes()
    return merged(
        EXAMPLES["cpu"],
        {
            "image": {"triton": IMAGE, "gateway": IMAGE},
            "triton": {
                "replicas": 2,
                "resources": {"requests": {"cpu": "400m", "memory": "1Gi"}},
                # three pods at a time, beside all else that this machine does
                "options": {"kv-cache-tokens": 49152},
                **environment,
            },
            "gateway": {"replicas": 2, **environment},
            # this machine may be busy: an answer of LONG_TOKENS must end within it
            "drain": {"maxGenerationSeconds": 240},
        },
    )


@pytest.fixture(scope="module")
def url(plane: ControlPlane, helm: Helm) -> str:
    """Of the gateways' Service, with the release installed and ready."""
    helm.install(RELEASE, NAMESPACE, values())
    wait_for_rollouts(plane)
    service = plane.api.get(f"/api/v1/namespaces/{NAMESPACE}/services/{GATEWAY}")
    return f"http://{service['spec']['clusterIP']}:8000"


def wait_for_rollouts(plane: ControlPlane) -> None:
    for name in (TRITON, GATEWAY):
        plane.kubectl("-n", NAMESPACE, "rollout", "status", f"deployment/{name}", timeout_s=READY_TIMEOUT_S)
    plane.api.wait_for_pods(NAMESPACE, 2, timeout_s=READY_TIMEOUT_S)
    plane.api.wait_for_pods(NAMESPACE, 2, component="gateway", timeout_s=READY_TIMEOUT_S)


@pytest.fixture(scope="module")
def streams(url: str) -> Iterator[SteadyStreams]:
    with SteadyStreams(url=url, model=MODEL, interval_s=2.0) as streams:
        yield streams


@pytest.fixture(scope="module")
def drains(plane: ControlPlane, url: str) -> Iterator[Drains]:
    with Drains(api=plane.api, namespace=NAMESPACE, lag_s=lag_s()) as drains:
        yield drains


def lag_s() -> float:
    """Of the chart."""
    (triton,) = [o for o in render(values()) if o["kind"] == "Deployment" and o["metadata"]["name"] == TRITON]
    return triton["spec"]["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]


def test_helm_test_passes(url: str, helm: Helm) -> None:
    print(helm("test", RELEASE, "-n", NAMESPACE, "--logs", "--timeout=10m"))


def restart(plane: ControlPlane, helm: Helm, begin_long: Callable[[], None]) -> None:
    begin_long()
    for name in (TRITON, GATEWAY):
        plane.kubectl("-n", NAMESPACE, "rollout", "restart", f"deployment/{name}")
    wait_for_rollouts(plane)


def scale_down_and_up(plane: ControlPlane, helm: Helm, begin_long: Callable[[], None]) -> None:
    for replicas in (1, 2):
        for name, component in ((TRITON, "triton"), (GATEWAY, "gateway")):
            if replicas == 1:
                begin_long()
            plane.kubectl("-n", NAMESPACE, "scale", f"deployment/{name}", f"--replicas={replicas}")
            plane.api.wait_for_pods(NAMESPACE, replicas, component=component, timeout_s=READY_TIMEOUT_S)


def evict(plane: ControlPlane, helm: Helm, begin_long: Callable[[], None]) -> None:
    for component in ("triton", "gateway"):
        begin_long()
        pod = plane.api.pods(NAMESPACE, component)[0]["metadata"]["name"]
        assert plane.api.evict(NAMESPACE, pod) == 201
        plane.api.wait_for_pods(NAMESPACE, 2, component=component, timeout_s=READY_TIMEOUT_S)


def upgrade(plane: ControlPlane, helm: Helm, begin_long: Callable[[], None]) -> None:
    begin_long()
    changed = {"model": {"servedNames": [MODEL, "next"]}, "triton": {"options": {"max-waiting": 200}}}
    helm.upgrade(RELEASE, NAMESPACE, merged(values(), changed))
    wait_for_rollouts(plane)


DISRUPTIONS: dict[str, Callable[[ControlPlane, Helm, Callable[[], None]], None]] = {
    "kubectl rollout restart": restart,
    "kubectl scale to 1 and back": scale_down_and_up,
    "eviction": evict,
    "helm upgrade": upgrade,
}


@pytest.mark.parametrize("name", DISRUPTIONS)
def test_no_stream_is_broken_or_refused(
    plane: ControlPlane, helm: Helm, streams: SteadyStreams, drains: Drains, name: str
) -> None:
    started_s = time.monotonic()
    DISRUPTIONS[name](plane, helm, lambda: streams.begin_long(LONG_STREAMS, tokens=LONG_TOKENS))
    tally: Tally = streams.tally(name, time.monotonic() - started_s)
    print(f"\n{tally}")
    over = drains.take()
    print(*over, sep="\n")
    assert tally.whole > 0
    assert (tally.broken, tally.refused) == (0, 0), tally.errors
    outlived: Counter[str] = Counter()
    for drain in over:
        outlived[drain.component] += drain.streams
    # what this test is about: streams that were alive when their pod was told to stop
    assert outlived.total() > 0

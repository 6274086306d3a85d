"""The chart's promise: streams survive a rollout, a scale-down, an eviction and an upgrade. Nothing is simulated."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import pytest
from tests.cluster.control_plane import ControlPlane
from tests.cluster.helm import Helm
from tests.helm.chart import GATEWAY, RELEASE, TRITON
from tests.node.drains import Drains
from tests.node.node import NAMESPACE
from tests.node.release import (
    KV_TOKENS,
    MODEL,
    READY_TIMEOUT_S,
    changed_values,
    lag_s,
    wait_for_rollouts,
)
from tests.node.streams import SteadyStreams

LONG_STREAMS = 6
# they share two decoders' keys and values
MOST_LONG_TOKENS = 2 * KV_TOKENS // LONG_STREAMS - 1024


@pytest.fixture(scope="module")
def streams(url: str) -> Iterator[SteadyStreams]:
    with SteadyStreams(url=url, model=MODEL, interval_s=2.0) as streams:
        yield streams


@pytest.fixture(scope="module")
def long_tokens(streams: SteadyStreams) -> int:
    """So many that LONG_STREAMS answers of them outlive the chart's lag here, and still end within the drain."""
    shortest_s, longest_s = lag_s() + 20, lag_s() + 60
    tokens = 4000
    for _ in range(6):
        seconds = streams.time_long(LONG_STREAMS, tokens=tokens)
        print(f"\n{LONG_STREAMS} answers of {tokens} tokens at once: the shortest takes {seconds:.0f} s")
        if shortest_s <= seconds <= longest_s:
            return tokens
        # attention makes the time grow faster than the tokens: the root never swings from too few to too many
        wanted = tokens * math.sqrt((shortest_s + longest_s) / 2 / seconds)
        tokens = min(MOST_LONG_TOKENS, round(wanted))
    pytest.fail(f"no number of tokens takes {shortest_s} to {longest_s} s on this machine", pytrace=False)


@pytest.fixture(scope="module")
def drains(plane: ControlPlane, url: str) -> Iterator[Drains]:
    logs = plane.folder / "logs"
    with Drains(api=plane.api, namespace=NAMESPACE, lag_s=lag_s(), logs=logs) as drains:
        yield drains


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
        plane.api.wait_until_evictable(NAMESPACE)
        begin_long()
        pod = plane.api.pods(NAMESPACE, component)[0]["metadata"]["name"]
        assert plane.api.evict(NAMESPACE, pod) == 201
        plane.api.wait_for_pods(NAMESPACE, 2, component=component, timeout_s=READY_TIMEOUT_S)


def upgrade(plane: ControlPlane, helm: Helm, begin_long: Callable[[], None]) -> None:
    begin_long()
    helm.upgrade(RELEASE, NAMESPACE, changed_values())
    wait_for_rollouts(plane)


DISRUPTIONS: dict[str, Callable[[ControlPlane, Helm, Callable[[], None]], None]] = {
    "kubectl rollout restart": restart,
    "kubectl scale to 1 and back": scale_down_and_up,
    "eviction": evict,
    "helm upgrade": upgrade,
}


@pytest.mark.parametrize("name", DISRUPTIONS)
def test_no_stream_is_broken_or_refused(
    plane: ControlPlane, helm: Helm, streams: SteadyStreams, drains: Drains, long_tokens: int, name: str
) -> None:
    started_s = time.monotonic()
    DISRUPTIONS[name](plane, helm, lambda: streams.begin_long(LONG_STREAMS, tokens=long_tokens))
    tally = streams.tally(name, started_s)
    print(f"\n{tally}")
    over = drains.take()
    print(*over, sep="\n")
    if tally.failed:
        print(tally.errors, *(drain.log_end for drain in over), sep="\n")
    assert tally.whole > 0
    assert (tally.broken, tally.refused) == (0, 0), tally.errors
    # what this test is about: streams that were alive when their pod was told to stop
    assert sum(drain.streams for drain in over) > 0


def test_no_pod_had_to_be_started_twice(plane: ControlPlane, url: str) -> None:
    pods = [*plane.api.pods(NAMESPACE), *plane.api.pods(NAMESPACE, "gateway")]
    restarts = {pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods}
    assert not any(restarts.values()), restarts

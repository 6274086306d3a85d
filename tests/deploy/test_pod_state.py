"""Pods and rollouts in words, from objects as API servers sent them."""

from __future__ import annotations

from typing import Any

import pytest

from autoglm_client.deploy.pod_state import deployment_state, has_given_up, pod_state

_UNSCHEDULABLE = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


def pod(*, containers: list[dict[str, Any]] | None = None, init: list[dict[str, Any]] | None = None, **status: Any):
    status = {"phase": "Pending", "containerStatuses": containers, "initContainerStatuses": init, **status}
    return {"metadata": {"name": "phone-0", "labels": None}, "spec": {}, "status": status}


def condition(kind: str, status: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "status": status, **more}


@pytest.mark.parametrize(
    ("given", "text", "is_stuck"),
    [
        (
            pod(conditions=[condition("PodScheduled", "False", reason="Unschedulable", message=_UNSCHEDULABLE)]),
            f"waits for a node: {_UNSCHEDULABLE}",
            True,
        ),
        (
            pod(containers=[{"name": "triton", "state": {"waiting": {"reason": "ContainerCreating"}}}]),
            "starting: images and volumes",
            False,
        ),
        (
            pod(
                containers=[
                    {"name": "t", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off x"}}}
                ]
            ),
            "the image cannot be pulled: Back-off x",
            True,
        ),
        (
            pod(
                phase="Running",
                containers=[
                    {
                        "name": "triton",
                        "restartCount": 4,
                        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
                        "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
                    }
                ],
            ),
            "triton keeps ending, last with exit status 137 (OOMKilled), 4 restarts",
            True,
        ),
        (
            pod(init=[{"name": "verify-weights", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]),
            "verify-weights ended with exit status 1",
            True,
        ),
        (
            pod(init=[{"name": "fetch-weights", "state": {"running": {}}}]),
            "init container fetch-weights runs",
            False,
        ),
        (
            pod(phase="Running", containers=[{"name": "t", "state": {"running": {}}}]),
            "loading: it runs, and is not ready yet",
            False,
        ),
        (pod(phase="Running", conditions=[condition("Ready", "True")]), "ready", False),
        (pod(phase="Succeeded"), "done", False),
        (pod(phase="Failed", reason="Evicted", message="low on memory"), "failed: Evicted low on memory", True),
    ],
)
def test_a_pod_in_words(given: dict[str, Any], text: str, is_stuck: bool):
    state = pod_state(given)

    assert (state.text, state.is_stuck, state.is_ready) == (text, is_stuck, text == "ready")


def test_a_pod_that_drains_is_leaving():
    draining = pod(phase="Running", conditions=[condition("Ready", "True")])
    draining["metadata"]["deletionTimestamp"] = "2026-11-21T08:00:00Z"

    assert pod_state(draining).text == "leaving: its streams end"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"observedGeneration": 1}, (False, "not looked at yet")),
        ({"observedGeneration": 2, "updatedReplicas": 1, "replicas": 3}, (False, "1 of 2 updated")),
        (
            {"observedGeneration": 2, "updatedReplicas": 2, "replicas": 3},
            (False, "1 of the old ones are still leaving"),
        ),
        ({"observedGeneration": 2, "updatedReplicas": 2, "replicas": 2}, (False, "0 of 2 available")),
        (
            {"observedGeneration": 2, "updatedReplicas": 2, "replicas": 2, "availableReplicas": 2},
            (True, "2 of 2 available"),
        ),
    ],
)
def test_how_far_a_rollout_is(status: dict[str, int], expected: tuple[bool, str]):
    assert deployment_state({"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status}) == expected


def test_a_rollout_over_its_deadline_has_given_up():
    late = condition("Progressing", "False", reason="ProgressDeadlineExceeded", message="timed out progressing.")

    assert has_given_up({"status": {"conditions": [late]}}) == "timed out progressing."
    assert has_given_up({"status": {"conditions": [condition("Progressing", "True")]}}) is None

"""A pod and a Deployment in a few words. Kubernetes' own fields in, text out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from autoglm_client.deploy.objects import Object, labels_of, name_of, part, parts

# what a container that waits is told, and what a person makes of it
_WAITING = {
    "ErrImagePull": "the image cannot be pulled",
    "ImagePullBackOff": "the image cannot be pulled",
    "ErrImageNeverPull": "the image is not on the node, and may not be pulled",
    "InvalidImageName": "the image's name is wrong",
    "CreateContainerConfigError": "the container cannot be made",
    "CreateContainerError": "the container cannot be made",
    "CrashLoopBackOff": "keeps ending",
    "ContainerCreating": "starting: images and volumes",
    "PodInitializing": "starting",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PodState:
    """`is_stuck`: it needs somebody's help, or a node."""

    name: str
    component: str
    node: str
    text: str
    is_ready: bool
    is_stuck: bool
    num_restarts: int


def pod_state(pod: Object) -> PodState:
    status = part(pod, "status")
    text, is_stuck = _describe(pod)
    return PodState(
        name=name_of(pod),
        component=labels_of(pod).get("app.kubernetes.io/component", ""),
        node=pod["spec"].get("nodeName", ""),
        text=text,
        is_ready=text == "ready",
        is_stuck=is_stuck,
        num_restarts=sum(int(c.get("restartCount", 0)) for c in parts(status, "containerStatuses")),
    )


def deployment_state(deployment: Object) -> tuple[bool, str]:
    """(whether its rollout is over, how far it is); as `kubectl rollout status` judges it."""
    status, wanted = part(deployment, "status"), int(deployment["spec"].get("replicas", 1))
    updated, total = int(status.get("updatedReplicas", 0)), int(status.get("replicas", 0))
    available = int(status.get("availableReplicas", 0))
    if int(status.get("observedGeneration", 0)) < int(deployment["metadata"].get("generation", 0)):
        return False, "not looked at yet"
    if updated < wanted:
        return False, f"{updated} of {wanted} updated"
    if total > updated:
        return False, f"{total - updated} of the old ones are still leaving"
    if available < wanted:
        return False, f"{available} of {wanted} available"
    return True, f"{available} of {wanted} available"


def has_given_up(deployment: Object) -> str | None:
    """Why Kubernetes counts its rollout as failed; None where it does not."""
    for condition in parts(deployment, "status", "conditions"):
        if condition["type"] == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            return str(condition.get("message", "its progress deadline is over"))
    return None


def _describe(pod: Object) -> tuple[str, bool]:
    status = part(pod, "status")
    if pod["metadata"].get("deletionTimestamp"):
        return "leaving: its streams end", False
    phase = status.get("phase")
    if phase == "Succeeded":
        return "done", False
    if phase == "Failed":
        return " ".join(["failed:", status.get("reason", ""), status.get("message", "")]).rstrip(": "), True
    conditions = {condition["type"]: condition for condition in parts(status, "conditions")}
    scheduled = part(conditions, "PodScheduled")
    if scheduled.get("status") == "False":
        return f"waits for a node: {scheduled.get('message', scheduled.get('reason', ''))}", True
    for is_init, container in _containers(status):
        found = _container_trouble(container, is_init=is_init)
        if found is not None:
            return found
    if part(conditions, "Ready").get("status") == "True":
        return "ready", False
    return ("loading: it runs, and is not ready yet" if phase == "Running" else "pending"), False


def _containers(status: Mapping[str, Any]) -> Iterator[tuple[bool, Object]]:
    yield from ((True, container) for container in parts(status, "initContainerStatuses"))
    yield from ((False, container) for container in parts(status, "containerStatuses"))


def _container_trouble(container: Object, *, is_init: bool) -> tuple[str, bool] | None:
    state = part(container, "state")
    waiting = state.get("waiting")
    if waiting:
        reason = str(waiting.get("reason", "waiting"))
        text = _WAITING.get(reason, reason)
        last = part(container, "lastState").get("terminated")
        if reason == "CrashLoopBackOff" and last:
            text = f"{container['name']} {text}, last with {_end(last)}, {container.get('restartCount', 0)} restarts"
        elif waiting.get("message"):
            text = f"{text}: {waiting['message']}"
        return text, reason not in ("ContainerCreating", "PodInitializing")
    if is_init and "running" in state:
        return f"init container {container['name']} runs", False
    ended = state.get("terminated")
    if ended and not (is_init and ended.get("exitCode") == 0):
        return f"{container['name']} ended with {_end(ended)}", ended.get("exitCode") != 0
    return None


def _end(terminated: Mapping[str, Any]) -> str:
    reason = str(terminated.get("reason", ""))
    status = f"exit status {terminated.get('exitCode')}"
    return f"{status} ({reason})" if reason not in ("", "Error", "Completed") else status

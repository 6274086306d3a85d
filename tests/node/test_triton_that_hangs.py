"""A model's process that hangs behind a Triton that is live and ready: its pod is restarted."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.cluster.api import Object, is_ready
from tests.cluster.control_plane import ControlPlane
from tests.cluster.helm import Helm
from tests.helm.chart import RELEASE
from tests.node.node import NAMESPACE
from tests.node.release import READY_TIMEOUT_S, changed_values, wait_for_rollouts


def test_a_triton_whose_decoder_stands_still_is_restarted(plane: ControlPlane, helm: Helm, url: str) -> None:
    helm.upgrade(RELEASE, NAMESPACE, changed_values())
    wait_for_rollouts(plane)
    pod = plane.api.pods(NAMESPACE)[0]["metadata"]
    os.kill(decoder_of(pod["uid"]), signal.SIGSTOP)

    def is_back(pods: list[Object]) -> bool:
        (found,) = [one for one in pods if one["metadata"]["uid"] == pod["uid"]]
        return found["status"]["containerStatuses"][0]["restartCount"] == 1 and is_ready(found)

    plane.api.wait_for(f"/api/v1/namespaces/{NAMESPACE}/pods", is_back, timeout_s=READY_TIMEOUT_S)
    events = plane.api.list(
        f"/api/v1/namespaces/{NAMESPACE}/events", fieldSelector=f"involvedObject.name={pod['name']}"
    )
    said = [event["message"] for event in events if "Liveness probe" in event["message"]]
    print("\n", *said, sep="\n")
    assert any("no token was made" in message for message in said)


def decoder_of(uid: str) -> int:
    """The process of that pod's text decoder."""
    (process,) = [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if _is_decoder_of(uid, folder)]
    return process


def _is_decoder_of(uid: str, process: Path) -> bool:
    try:
        arguments = (process / "cmdline").read_text().split("\0")
        return (
            arguments[0].endswith("triton_python_backend_stub")
            and "/text_decoder/" in arguments[1]
            and f"pod{uid}" in (process / "cgroup").read_text()
        )
    except (FileNotFoundError, ProcessLookupError):
        return False  # over meanwhile

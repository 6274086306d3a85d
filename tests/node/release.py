"""The release that the node tests watch: the example for CPUs, twice Triton and twice the gateway."""

from __future__ import annotations

from typing import Any

from tests.cluster.control_plane import ControlPlane
from tests.helm.chart import EXAMPLES, GATEWAY, TRITON, container, merged, render
from tests.node.images import REPOSITORY, TAG, environment_volumes
from tests.node.node import NAMESPACE

MODEL = "autoglm-phone-9b"
READY_TIMEOUT_S = 600.0
KV_TOKENS = 49152
"""Of each decoder: four pods may be there at a time, beside all else that this machine does."""
_IMAGE = {"repository": REPOSITORY, "tag": TAG, "pullPolicy": "Never"}


def values() -> dict[str, Any]:
    """Drains are the chart's."""
    environment = environment_volumes()
    return merged(
        EXAMPLES["cpu"],
        {
            "image": {"triton": _IMAGE, "gateway": _IMAGE},
            "triton": {
                "replicas": 2,
                "resources": {"requests": {"cpu": "400m", "memory": "1Gi"}},
                "options": {"kv-cache-tokens": KV_TOKENS},
                **environment,
            },
            "gateway": {"replicas": 2, **environment},
            # this machine may be busy: a long answer must end within it
            "drain": {"maxGenerationSeconds": 240},
        },
    )


def changed_values() -> dict[str, Any]:
    """What makes every pod anew, with a liveness probe that is quick to find a hang."""
    liveness = {"periodSeconds": 5, "timeoutSeconds": 5}
    return merged(
        values(),
        {
            "model": {"servedNames": [MODEL, "next"]},
            "triton": {"options": {"max-waiting": 200}, "probes": {"liveness": liveness}},
        },
    )


def lag_s() -> float:
    """Of the chart: from a pod's deletion to its SIGTERM."""
    return container(render(values()), TRITON)["lifecycle"]["preStop"]["sleep"]["seconds"]


def wait_for_rollouts(plane: ControlPlane) -> None:
    for name in (TRITON, GATEWAY):
        plane.kubectl("-n", NAMESPACE, "rollout", "status", f"deployment/{name}", timeout_s=READY_TIMEOUT_S)
    plane.api.wait_for_pods(NAMESPACE, 2, timeout_s=READY_TIMEOUT_S)
    plane.api.wait_for_pods(NAMESPACE, 2, component="gateway", timeout_s=READY_TIMEOUT_S)

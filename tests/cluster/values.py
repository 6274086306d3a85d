"""Values of the releases on paper nodes: the product's, with times short enough to wait for."""

from __future__ import annotations

from typing import Any

from tests.cluster.fleet import POOL
from tests.helm.chart import merged


def release_values(
    pool: str, *, replicas: int = 2, tensor_parallel_size: int = 1, gateways: int = 1, **sections: Any
) -> dict[str, Any]:
    """For Triton pods on the nodes of `pool`; `sections` come on top."""
    base = {
        "triton": {
            "replicas": replicas,
            "tensorParallelSize": tensor_parallel_size,
            "nodeSelector": {POOL: pool},
            "rollout": {"minReadySeconds": 0},
        },
        "gateway": {"replicas": gateways, "limits": {"maxWaitSeconds": 1}},
        "drain": {"maxGenerationSeconds": 1, "endpointLagSeconds": 1, "marginSeconds": 15},
    }
    return merged(base, sections)

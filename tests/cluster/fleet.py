"""Nodes with GPUs that exist on paper: KWOK keeps them Ready and says of their pods that they run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.cluster.api import Object
from tests.cluster.control_plane import ControlPlane
from tests.cluster.daemons import free_ports
from tests.cluster.programs import BIN

GPU = "nvidia.com/gpu"
_MARK = {"kwok.x-k8s.io/node": "fake"}
POOL = "autoglm.test/pool"


def start_kwok(plane: ControlPlane) -> None:
    (port,) = free_ports(1)
    plane.daemons.start(
        "kwok",
        BIN / "kwok",
        f"--kubeconfig={plane.kubeconfig}",
        f"--server-address=127.0.0.1:{port}",
        "--manage-all-nodes=false",
        "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
    )


def gpu_node(name: str, *, gpus: int, pool: str, zone: str = "a") -> Object:
    capacity = {"cpu": "256", "memory": "2Ti", "pods": "256", "ephemeral-storage": "8Ti", GPU: str(gpus)}
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "topology.kubernetes.io/zone": zone,
        "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
        POOL: pool,
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "annotations": dict(_MARK), "labels": labels},
        "spec": {"taints": [{"key": GPU, "effect": "NoSchedule"}]},
        "status": {"capacity": capacity, "allocatable": capacity},
    }


def cpu_node(name: str) -> Object:
    """For gateways of every pool: no GPU, no taint."""
    node = gpu_node(name, gpus=0, pool="")
    del node["spec"], node["metadata"]["labels"]["nvidia.com/gpu.product"]
    for amounts in (node["status"]["capacity"], node["status"]["allocatable"]):
        amounts.pop(GPU, None)
    return node


def add_nodes(plane: ControlPlane, nodes: list[Object], *, timeout_s: float = 240.0) -> None:
    """Returns when all of them are Ready."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda node: plane.api.must_create("/api/v1/nodes", node), nodes))
    names = {node["metadata"]["name"] for node in nodes}

    def all_ready(found: list[Object]) -> bool:
        ready = {
            node["metadata"]["name"]
            for node in found
            for condition in node["status"].get("conditions", [])
            if condition["type"] == "Ready" and condition["status"] == "True" and not _is_tainted(node)
        }
        return names <= ready

    plane.api.wait_for("/api/v1/nodes", all_ready, timeout_s=timeout_s)


def remove_nodes(plane: ControlPlane, nodes: list[Object]) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda node: plane.api.delete(f"/api/v1/nodes/{node['metadata']['name']}"), nodes))


def _is_tainted(node: Object) -> bool:
    """The controller manager takes this taint away a moment after a node is Ready."""
    return any(taint["key"].startswith("node.kubernetes.io/") for taint in node["spec"].get("taints", []))

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.control_plane import PROGRAMS, ControlPlane, start_control_plane
from tests.cluster.daemons import daemons_in
from tests.cluster.helm import Helm
from tests.cluster.programs import NODE
from tests.helm.chart import GATEWAY, RELEASE
from tests.node.images import Builder
from tests.node.node import NAMESPACE, programs_missing, start_containerd, start_node
from tests.node.release import values, wait_for_rollouts
from tests.node.room import room_missing


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """A cluster of one real node, with our images on it."""
    if "AUTOGLM_NODE_FOLDER" not in os.environ:
        NODE.missing("the node tests change mounts and routes, so they run in namespaces: make test-node")
    NODE.need_programs(*PROGRAMS, "kubelet", "kube-proxy", "coredns", "helm")
    NODE.need_commands(
        containerd="containerd", runc="runc", buildah="buildah", iptables="iptables", conntrack="conntrack"
    )
    NODE.need_commands(nft="nftables", go="golang", setpriv="util-linux")
    if absent := programs_missing():
        NODE.missing(f"no {', '.join(absent)}: apt-get install containernetworking-plugins")
    folder = Path(os.environ["AUTOGLM_NODE_FOLDER"])
    if scarce := room_missing(folder):
        NODE.missing("; ".join(scarce))
    with daemons_in(folder) as daemons:
        plane = start_control_plane(daemons)
        try:
            containerd = start_containerd(plane)
            builder = Builder(folder=folder / "images")
            builder.folder.mkdir()
            for archive in (builder.pause_image(), builder.code_image()):
                containerd.load(archive)
                archive.unlink()
            start_node(plane, containerd)
            # weights and environments are mounted from the host, which `restricted` refuses
            plane.api.namespace(NAMESPACE, pod_security="privileged")
            yield plane
        finally:
            plane.api.close()


@pytest.fixture(scope="session")
def helm(plane: ControlPlane) -> Helm:
    home = plane.folder / "helm-home"
    home.mkdir(exist_ok=True)
    return Helm(version=3, kubeconfig=plane.kubeconfig, home=home)


@pytest.fixture(scope="session")
def url(plane: ControlPlane, helm: Helm) -> str:
    """Of the gateways' Service, with the release installed and ready."""
    helm.install(RELEASE, NAMESPACE, values())
    wait_for_rollouts(plane)
    service = plane.api.get(f"/api/v1/namespaces/{NAMESPACE}/services/{GATEWAY}")
    return f"http://{service['spec']['clusterIP']}:8000"

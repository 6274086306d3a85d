"""One real node beside a control plane: containerd, kubelet, kube-proxy and CoreDNS."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.api import Object
from tests.cluster.control_plane import ControlPlane, write_kubeconfig
from tests.cluster.daemons import free_ports
from tests.cluster.programs import BIN

NAME = "node-0"
NAMESPACE = "ai"
"""Of the release."""
ADDRESS = "10.250.0.1"
"""Of the bridge that run.sh makes."""
POD_RANGE = "10.244.0.0/24"
PAUSE = "localhost/autoglm-pause:test"
START_TIMEOUT_S = 120.0
_PLUGINS = "/usr/lib/cni"


@dataclass(frozen=True, slots=True, kw_only=True)
class Containerd:
    socket: Path

    def load(self, archive: Path) -> None:
        """Takes the images of an archive of `docker save`'s form."""
        command = ["ctr", f"--address={self.socket}", "--namespace=k8s.io", "images", "import", str(archive)]
        subprocess.run(command, check=True, capture_output=True)


def start_containerd(plane: ControlPlane) -> Containerd:
    folder = plane.folder
    socket = folder / "containerd.sock"
    networks = folder / "cni"
    networks.mkdir()
    # a link of its own for each pod: on a bridge, answers that one pod gives another would pass by the address
    # translation of Services
    plugin = {
        "type": "ptp",
        "ipMasq": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": POD_RANGE}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }
    conflist = {"cniVersion": "0.4.0", "name": "pods", "plugins": [plugin]}
    (networks / "10-pods.conflist").write_text(json.dumps(conflist))
    config = folder / "containerd.toml"
    config.write_text(
        f"""version = 2
root = "{folder}/containerd"
state = "/run/containerd"
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
# without CAP_SYS_RESOURCE nobody may lower the score
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{_PLUGINS}"
conf_dir = "{networks}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"""
    )
    plane.daemons.start("containerd", "containerd", f"--config={config}")
    plane.daemons.wait_until(
        lambda: (
            subprocess.run(["ctr", f"--address={socket}", "version"], capture_output=True, check=False).returncode == 0
        ),
        what="containerd",
        timeout_s=START_TIMEOUT_S,
    )
    return Containerd(socket=socket)


def start_node(plane: ControlPlane, containerd: Containerd) -> None:
    """Returns when the node is Ready and Services work."""
    _start_dns(plane)
    _start_kube_proxy(plane)
    _start_kubelet(plane, containerd)

    def ready(nodes: list[Object]) -> bool:
        return any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for node in nodes
            for condition in node["status"].get("conditions", [])
        ) and not any(
            taint["key"].startswith("node.kubernetes.io/") for n in nodes for taint in n["spec"].get("taints", [])
        )

    plane.api.wait_for("/api/v1/nodes", ready, timeout_s=START_TIMEOUT_S)
    _share_processors()
    # the kubelet leaves out what --hostname-override names
    label = {"metadata": {"labels": {"kubernetes.io/hostname": NAME}}}
    plane.api.patch(f"/api/v1/nodes/{NAME}", label)


def _share_processors() -> None:
    """A node is a machine of its own; beside thirty busy processes all its pods together would get one share of 31.

    Only as much as the load asks for: more than the kubelet's own share takes the processors from the API server, and
    endpoints that come late break streams.
    """
    load = os.getloadavg()[0]
    for file, weight in (
        (Path("/sys/fs/cgroup/cpu/kubepods/cpu.shares"), 256 * load),
        (Path("/sys/fs/cgroup/kubepods/cpu.weight"), 10 * load),
    ):
        if file.exists():
            file.write_text(str(max(int(file.read_text()), min(round(weight), 8192))))


def _start_kubelet(plane: ControlPlane, containerd: Containerd) -> None:
    folder = plane.folder
    identity = plane.authority.client(f"system:node:{NAME}", "system:nodes")
    kubeconfig = write_kubeconfig(folder / "kubelet.kubeconfig", plane.url, plane.authority, identity)
    (folder / "resolv.conf").write_text("")
    port, health_port = free_ports(2)
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": ADDRESS,
        "port": port,
        "healthzPort": health_port,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(plane.authority.ca_file)},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "containerRuntimeEndpoint": f"unix://{containerd.socket}",
        "clusterDNS": [ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(folder / "resolv.conf"),
        "podLogsDir": str(folder / "logs"),
        "volumePluginDir": str(folder / "volume-plugins"),
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "featureGates": {"KubeletInUserNamespace": True},
        "evictionHard": {"memory.available": "64Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
    }
    (folder / "kubelet.json").write_text(json.dumps(config))
    plane.daemons.start(
        "kubelet",
        BIN / "kubelet",
        f"--config={folder / 'kubelet.json'}",
        f"--kubeconfig={kubeconfig}",
        f"--root-dir={folder / 'kubelet'}",
        f"--cert-dir={folder / 'kubelet-certificates'}",
        f"--hostname-override={NAME}",
        f"--node-ip={ADDRESS}",
    )


def _start_kube_proxy(plane: ControlPlane) -> None:
    folder = plane.folder
    identity = plane.authority.client("system:kube-proxy")
    kubeconfig = write_kubeconfig(folder / "proxy.kubeconfig", plane.url, plane.authority, identity)
    health_port, metrics_port = free_ports(2)
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": POD_RANGE,
        "hostnameOverride": NAME,
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "conntrack": {"maxPerCore": 0, "min": 0},
        "healthzBindAddress": f"127.0.0.1:{health_port}",
        "metricsBindAddress": f"127.0.0.1:{metrics_port}",
    }
    (folder / "kube-proxy.json").write_text(json.dumps(config))
    plane.daemons.start("kube-proxy", BIN / "kube-proxy", f"--config={folder / 'kube-proxy.json'}")


def _start_dns(plane: ControlPlane) -> None:
    """With the cache of 30 s that clusters come with."""
    corefile = plane.folder / "Corefile"
    corefile.write_text(
        f"""cluster.local:53 {{
  errors
  kubernetes cluster.local {{
    kubeconfig {plane.kubeconfig} test
    ttl 30
  }}
  cache 30
}}
"""
    )
    plane.daemons.start("coredns", BIN / "coredns", f"-conf={corefile}")


def programs_missing() -> list[str]:
    """CNI plugins are no commands on PATH."""
    return [name for name in ("ptp", "host-local", "loopback") if shutil.which(name, path=_PLUGINS) is None]

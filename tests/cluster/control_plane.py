"""etcd, API server, controller manager and scheduler on loopback, in a folder of their own."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.api import Api
from tests.cluster.certificates import Authority, KeyPair
from tests.cluster.daemons import Daemons, answers, free_ports
from tests.cluster.programs import BIN

SERVICE_RANGE = "10.96.0.0/16"
START_TIMEOUT_S = 300.0
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    folder: Path
    daemons: Daemons
    authority: Authority
    url: str
    kubeconfig: Path
    api: Api

    def kubectl(self, *arguments: str, timeout_s: float = 600.0) -> str:
        """Its output. Raises RuntimeError with what it complained of."""
        command = [str(BIN / "kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr}{done.stdout}")
        return done.stdout


def start_control_plane(daemons: Daemons, *, horizontal_sync_s: float = 1.0) -> ControlPlane:
    """Ready when it returns: some seconds on an idle machine."""
    folder = daemons.folder
    authority = Authority(folder)
    etcd_port, peer_port, port, manager_port, scheduler_port = free_ports(5)
    etcd, url = f"http://127.0.0.1:{etcd_port}", f"https://127.0.0.1:{port}"
    admin = authority.client("admin", "system:masters")
    accounts = authority.client("service-accounts")
    kubeconfig = write_kubeconfig(folder / "admin.kubeconfig", url, authority, admin)
    api = Api(url, ca_file=str(authority.ca_file), cert_file=str(admin.cert), key_file=str(admin.key))

    peer = f"http://127.0.0.1:{peer_port}"
    daemons.start(
        "etcd",
        BIN / "etcd",
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={etcd}",
        f"--advertise-client-urls={etcd}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
    )
    _start_api_server(daemons, authority, admin, accounts, etcd=etcd, port=port)
    daemons.wait_until(lambda: answers(api.http, "/readyz"), what="the API server", timeout_s=START_TIMEOUT_S)
    # the limits on requests are for clusters that many share
    fast = ("--kube-api-qps=1000", "--kube-api-burst=2000", "--leader-elect=false", "--bind-address=127.0.0.1")
    daemons.start(
        "kube-controller-manager",
        BIN / "kube-controller-manager",
        *fast,
        f"--kubeconfig={kubeconfig}",
        f"--secure-port={manager_port}",
        f"--cert-dir={folder / 'manager'}",
        f"--service-account-private-key-file={accounts.key}",
        f"--root-ca-file={authority.ca_file}",
        f"--horizontal-pod-autoscaler-sync-period={horizontal_sync_s}s",
        "--concurrent-deployment-syncs=10",
        # no node dies here, and a busy machine keeps them from saying so; KWOK says nothing for minutes
        "--node-monitor-grace-period=1h",
    )
    daemons.start(
        "kube-scheduler",
        BIN / "kube-scheduler",
        *fast,
        f"--kubeconfig={kubeconfig}",
        f"--secure-port={scheduler_port}",
        f"--cert-dir={folder / 'scheduler'}",
    )
    account = "/api/v1/namespaces/default/serviceaccounts/default"
    daemons.wait_until(lambda: answers(api.http, account), what="the controller manager", timeout_s=START_TIMEOUT_S)
    return ControlPlane(folder=folder, daemons=daemons, authority=authority, url=url, kubeconfig=kubeconfig, api=api)


def write_kubeconfig(path: Path, url: str, authority: Authority, user: KeyPair) -> Path:
    cluster = {"server": url, "certificate-authority": str(authority.ca_file)}
    credentials = {"client-certificate": str(user.cert), "client-key": str(user.key)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "user", "user": credentials}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user"}}],
        "current-context": "test",
    }
    path.write_text(json.dumps(config))
    path.chmod(0o600)  # helm warns otherwise
    return path


def _start_api_server(
    daemons: Daemons, authority: Authority, admin: KeyPair, accounts: KeyPair, *, etcd: str, port: int
) -> None:
    server = authority.server("apiserver", "127.0.0.1", "10.96.0.1", "localhost")
    proxy = authority.client("front-proxy")
    daemons.start(
        "kube-apiserver",
        BIN / "kube-apiserver",
        f"--etcd-servers={etcd}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={daemons.folder / 'apiserver'}",
        f"--tls-cert-file={server.cert}",
        f"--tls-private-key-file={server.key}",
        f"--client-ca-file={authority.ca_file}",
        f"--service-account-issuer=https://127.0.0.1:{port}",
        f"--service-account-key-file={accounts.key}",
        f"--service-account-signing-key-file={accounts.key}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged=true",
        # or logs and exec ask for the node by its name, which nothing resolves
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-client-certificate={admin.cert}",
        f"--kubelet-client-key={admin.key}",
        f"--requestheader-client-ca-file={authority.ca_file}",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={proxy.cert}",
        f"--proxy-client-key-file={proxy.key}",
        # fairness among tenants holds back a lone test
        "--enable-priority-and-fairness=false",
    )

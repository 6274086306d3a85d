"""A release as it stands: revision, Deployments, pods, autoscalers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, TextIO

from autoglm_client.deploy.cluster import Cluster
from autoglm_client.deploy.errors import DeployError
from autoglm_client.deploy.helm import Helm, Revision, Target
from autoglm_client.deploy.objects import Object, name_of, part
from autoglm_client.deploy.pod_state import deployment_state, pod_state
from autoglm_client.deploy.rollout import Watch


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseStatus:
    revision: Revision
    deployments: Sequence[Object]
    pods: Sequence[Object]
    scalers: Sequence[Object]

    @property
    def is_ready(self) -> bool:
        rolled_out = all(deployment_state(item)[0] for item in self.deployments)
        return self.revision.status == "deployed" and bool(self.deployments) and rolled_out

    def to_json(self) -> dict[str, Any]:
        states = [pod_state(pod) for pod in self.pods]
        return {
            "ready": self.is_ready,
            "revision": self.revision.number,
            "status": self.revision.status,
            "chart": self.revision.chart,
            "deployments": {name_of(d): deployment_state(d)[1] for d in self.deployments},
            "pods": [
                {"name": s.name, "state": s.text, "ready": s.is_ready, "node": s.node, "restarts": s.num_restarts}
                for s in states
            ],
        }


def read_status(cluster: Cluster, helm: Helm, target: Target, out: TextIO) -> ReleaseStatus:
    """Raises DeployError where there is no such release."""
    watch = Watch(cluster=cluster, target=target, out=out)
    selector = f"app.kubernetes.io/instance={target.release}"
    scalers = f"/apis/autoscaling/v2/namespaces/{target.namespace}/horizontalpodautoscalers"
    return ReleaseStatus(
        revision=current_revision(helm, target),
        deployments=watch.deployments(),
        pods=watch.pods(),
        scalers=cluster.items(scalers, labelSelector=selector),
    )


def current_revision(helm: Helm, target: Target) -> Revision:
    """The newest. Raises DeployError where there is no such release."""
    revisions = helm.history()
    if not revisions:
        raise DeployError(
            f"there is no release {target.release} in namespace {target.namespace}: --release and --namespace choose "
            "another, `autoglm deploy install` makes it."
        )
    return max(revisions, key=lambda revision: revision.number)


def print_status(status: ReleaseStatus, target: Target, out: TextIO) -> None:
    revision = status.revision
    out.write(
        f"{target.release} in {target.namespace}: revision {revision.number}, {revision.status}, {revision.chart}, "
        f"{revision.updated}\n"
    )
    rows = [("DEPLOYMENT", "STATE")]
    rows += [(name_of(item), deployment_state(item)[1]) for item in status.deployments]
    _print_table(rows, out)
    pods = [("POD", "RESTARTS", "AGE", "NODE", "STATE")]
    for pod in status.pods:
        state = pod_state(pod)
        age = _age(str(pod["metadata"].get("creationTimestamp", "")))
        pods.append((state.name, str(state.num_restarts), age, state.node or "-", state.text))
    _print_table(pods, out)
    scalers = [("AUTOSCALER", "REPLICAS", "BOUNDS")]
    for item in status.scalers:
        bounds = f"{item['spec'].get('minReplicas', 1)} to {item['spec']['maxReplicas']}"
        now = part(item, "status")
        replicas = f"{now.get('currentReplicas', 0)}, wants {now.get('desiredReplicas', 0)}"
        scalers.append((name_of(item), replicas, bounds))
    if len(scalers) > 1:
        _print_table(scalers, out)


def print_history(revisions: Iterable[Revision], out: TextIO) -> None:
    rows = [("REVISION", "UPDATED", "STATUS", "CHART", "DESCRIPTION")]
    rows += [(str(r.number), r.updated, r.status, r.chart, r.description) for r in revisions]
    _print_table(rows, out)


def _print_table(rows: Sequence[Sequence[str]], out: TextIO) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    out.write("\n")
    for row in rows:
        out.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")


def _age(created: str) -> str:
    if not created:
        return "-"
    born = datetime.strptime(created, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    seconds = int((datetime.now(timezone.utc) - born).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"

"""The logs of a release's pods, each line with its pod's name where there is more than one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import TextIO

from autoglm_client.deploy.cluster import Cluster
from autoglm_client.deploy.errors import ClusterError, DeployError
from autoglm_client.deploy.helm import Target
from autoglm_client.deploy.objects import Object, name_of


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """Which lines. `component` None: of every one; `tail` None: from the beginning."""

    component: str | None = None
    tail: int | None = None
    follow: bool = False
    previous: bool = False


def show_logs(cluster: Cluster, target: Target, query: LogQuery, out: TextIO) -> None:
    """Raises DeployError where there is no such pod, or none of them has a log."""
    selector = f"app.kubernetes.io/instance={target.release}"
    if query.component is not None:
        selector += f",app.kubernetes.io/component={query.component}"
    path = f"/api/v1/namespaces/{target.namespace}/pods"
    pods = cluster.items(path, labelSelector=selector)
    if not pods:
        what = f"{query.component} of {target.release}" if query.component else target.release
        raise DeployError(f"no pod of {what} in namespace {target.namespace}.")
    streams = [(name_of(pod), container) for pod in pods for container in _containers(pod)]
    lock, failures = Lock(), list[str]()

    def show(pod: str, container: str) -> None:
        prefix = f"{pod}: " if len(streams) > 1 else ""
        try:
            for line in cluster.lines(f"{path}/{pod}/log", **_parameters(query, container)):
                with lock:
                    out.write(f"{prefix}{line}\n")
                    out.flush()
        except ClusterError as error:
            with lock:
                failures.append(f"{pod}: {error}")

    # following never ends by itself, so every stream has a thread
    with ThreadPoolExecutor(max_workers=len(streams) if query.follow else 1) as pool:
        for _ in pool.map(show, *zip(*streams, strict=True)):
            pass
    if len(failures) == len(streams):
        raise DeployError("\n".join(failures))
    for sentence in failures:
        out.write(f"{sentence}\n")


def _containers(pod: Object) -> list[str]:
    return [str(container["name"]) for container in pod["spec"]["containers"]]


def _parameters(query: LogQuery, container: str) -> dict[str, str]:
    parameters = {"container": container}
    if query.tail is not None:
        parameters["tailLines"] = str(query.tail)
    if query.follow:
        parameters["follow"] = "true"
    if query.previous:
        parameters["previous"] = "true"
    return parameters

"""A release while it comes up: a line for every change of a pod, until all of it is ready or the time is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, TextIO, TypeVar

from autoglm_client.deploy.cluster import Cluster
from autoglm_client.deploy.errors import ClusterError, DeployError
from autoglm_client.deploy.helm import Target
from autoglm_client.deploy.objects import Object, name_of, part, parts
from autoglm_client.deploy.pod_state import deployment_state, has_given_up, pod_state

POLL_S = 1.0
_LOG_LINES = 15
_T = TypeVar("_T")


class RolloutError(DeployError):
    """It did not come up; the lines that say why are out already."""


@dataclass(slots=True, kw_only=True)
class Watch:
    """Follows one release. `pause` waits that many seconds between two looks."""

    cluster: Cluster
    target: Target
    out: TextIO
    pause: Callable[[float], None] = time.sleep
    started_s: float = field(default_factory=time.monotonic)
    _last: dict[str, str] = field(default_factory=dict[str, str])

    def during(self, work: Callable[[], _T]) -> _T:
        """Shows the pods while `work` runs, such as Helm with its hooks."""
        with ThreadPoolExecutor(max_workers=1) as worker:
            future = worker.submit(work)
            while not wait([future], timeout=POLL_S).done:
                self._show_pods()
            return future.result()

    def until_ready(self, timeout_s: float) -> None:
        """Returns when every Deployment has rolled out. Raises RolloutError after saying what each pod lacks."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            self._show_pods()
            deployments = self.deployments()
            states = {name_of(item): deployment_state(item) for item in deployments}
            for name, (_, text) in states.items():
                self._say(f"deployment/{name}", text)
            if all(is_over for is_over, _ in states.values()):
                return
            given_up = {name_of(d): why for d in deployments if (why := has_given_up(d)) is not None}
            if given_up or time.monotonic() > deadline_s:
                self._explain()
                reason = "; ".join(f"{name}: {why}" for name, why in given_up.items())
                raise RolloutError(reason or f"not ready after {timeout_s:.0f} s")
            self.pause(POLL_S)

    def until_gone(self, timeout_s: float) -> None:
        """Returns when the last pod has left. Raises RolloutError."""
        deadline_s = time.monotonic() + timeout_s
        while pods := self.pods():
            self._show_pods(pods)
            if time.monotonic() > deadline_s:
                raise RolloutError(f"{len(pods)} pods are still there after {timeout_s:.0f} s")
            self.pause(POLL_S)

    def pods(self) -> list[Object]:
        return self.cluster.items(self._path("/api/v1", "pods"), labelSelector=self._selector)

    def deployments(self) -> list[Object]:
        return self.cluster.items(self._path("/apis/apps/v1", "deployments"), labelSelector=self._selector)

    @property
    def _selector(self) -> str:
        return f"app.kubernetes.io/instance={self.target.release}"

    def _path(self, prefix: str, plural: str) -> str:
        return f"{prefix}/namespaces/{self.target.namespace}/{plural}"

    def _show_pods(self, pods: list[Object] | None = None) -> None:
        found = [pod_state(pod) for pod in (self.pods() if pods is None else pods)]
        for state in found:
            self._say(f"pod/{state.name}", state.text)
        for name in [name for name in self._last if name.startswith("pod/")]:
            if name.removeprefix("pod/") not in {state.name for state in found}:
                self._say(name, "gone")
                del self._last[name]

    def _say(self, name: str, text: str) -> None:
        if self._last.get(name) != text:
            self._last[name] = text
            self.out.write(f"[{time.monotonic() - self.started_s:5.0f} s] {name}: {text}\n")
            self.out.flush()

    def _explain(self) -> None:
        for pod in self.pods():
            state = pod_state(pod)
            if state.is_ready or state.text == "done":
                continue
            self.out.write(f"\n{state.name}: {state.text}\n")
            for line in [*self._events(state.name), *self._log(pod)]:
                self.out.write(f"    {line}\n")

    def _events(self, pod: str) -> Iterator[str]:
        selector = f"involvedObject.kind=Pod,involvedObject.name={pod}"
        try:
            events = self.cluster.items(self._path("/api/v1", "events"), fieldSelector=selector)
        except ClusterError as error:
            yield f"(events: {error})"
            return
        for event in events:
            if event.get("type") == "Warning":
                yield f"{event.get('reason')}: {' '.join(str(event.get('message', '')).split())}"

    def _log(self, pod: Object) -> Iterator[str]:
        path = f"{self._path('/api/v1', 'pods')}/{pod['metadata']['name']}/log"
        for container in parts(pod, "status", "containerStatuses"):
            query: dict[str, Any] = {"container": container["name"], "tailLines": str(_LOG_LINES)}
            if container.get("restartCount") and not part(container, "state").get("running"):
                query["previous"] = "true"
            try:
                yield from self.cluster.lines(path, **query)
            except ClusterError:  # it has not written anything yet
                continue

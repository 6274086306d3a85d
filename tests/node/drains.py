"""What pods still have to answer when they are told to stop, and what they said last."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from tests.cluster.api import Api, Object, is_leaving, pods_path

# component -> port of its metrics, and the gauge of streams that it answers
_GAUGES = {"triton": (8002, "autoglm_streams"), "gateway": (8000, "vllm:num_requests_running")}
_LOOK_EVERY_S = 0.5
_SIGNAL_LATE_S = 3.0  # of the kubelet's SIGTERM, generously: a later look can only see fewer streams
_LOG_BYTES = 3000


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """`streams`: what the pod still answered a moment after SIGTERM; `seconds`: from its deletion to its end."""

    component: str
    pod: str
    streams: int
    seconds: float
    log_end: str

    def __str__(self) -> str:
        return f"  {self.pod}: told to stop with {self.streams} streams, gone after {self.seconds:.0f} s"


@dataclass(slots=True)
class _Leaving:
    component: str
    since_s: float
    streams: int | None = None
    log_end: str = ""


@dataclass(slots=True, kw_only=True)
class Drains:
    """Looks at the pods of a namespace from a thread of its own. `lag_s`: from a pod's deletion to its SIGTERM."""

    api: Api
    namespace: str
    lag_s: float
    logs: Path
    """Where the kubelet keeps them; it removes a pod's when the pod is gone."""
    _ended: list[Drain] = field(default_factory=list)
    _leaving: dict[str, _Leaving] = field(default_factory=dict)
    _looked: threading.Condition = field(default_factory=threading.Condition)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _executor: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _looking: list[Future[None]] = field(default_factory=list)
    _is_over: bool = False

    def __enter__(self) -> Drains:
        self._looking.append(self._executor.submit(self._look_steadily))
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._executor.shutdown()

    def take(self) -> Sequence[Drain]:
        """Those that began since the last call, once all of them are over."""
        with self._looked:
            self._looked.wait_for(lambda: self._is_over or not self._leaving)
            ended, self._ended = self._ended, []
        if self._is_over:
            self._looking[0].result()
        return ended

    def _look_steadily(self) -> None:
        try:
            while not self._stopping.wait(_LOOK_EVERY_S):
                try:
                    pods = {pod["metadata"]["name"]: pod for pod in self.api.list(pods_path(self.namespace))}
                except httpx.TransportError:
                    continue  # a starved API server; the next look sees the same pods
                with self._looked:
                    self._look(pods, time.monotonic())
                    self._looked.notify_all()
        finally:
            with self._looked:
                self._is_over = True
                self._looked.notify_all()

    def _look(self, pods: dict[str, Object], now_s: float) -> None:
        for name, pod in pods.items():
            component = pod["metadata"]["labels"].get("app.kubernetes.io/component")
            if is_leaving(pod) and component in _GAUGES:
                leaving = self._leaving.setdefault(name, _Leaving(component, now_s))
                if leaving.streams is None and now_s > leaving.since_s + self.lag_s + _SIGNAL_LATE_S:
                    leaving.streams = _streams(component, pod["status"].get("podIP"))
                leaving.log_end = _log_end(self.logs, pod) or leaving.log_end
        for name in self._leaving.keys() - pods.keys():
            gone = self._leaving.pop(name)
            self._ended.append(
                Drain(
                    component=gone.component,
                    pod=name,
                    streams=gone.streams or 0,
                    seconds=now_s - gone.since_s,
                    log_end=f"--- {name}\n{gone.log_end}",
                )
            )


def _log_end(logs: Path, pod: Object) -> str:
    metadata = pod["metadata"]
    folder = logs / f"{metadata['namespace']}_{metadata['name']}_{metadata['uid']}"
    try:
        return "".join(file.read_text(errors="replace")[-_LOG_BYTES:] for file in sorted(folder.glob("*/*.log")))
    except FileNotFoundError:
        return ""  # just removed


def _streams(component: str, address: str | None) -> int:
    """None are left where nobody answers any more."""
    if address is None:
        return 0
    port, gauge = _GAUGES[component]
    try:
        page = httpx.get(f"http://{address}:{port}/metrics", timeout=10.0).text
    except httpx.TransportError:
        return 0
    samples = (line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    return sum(int(float(value)) for series, value in samples if series.split("{")[0] == gauge)

"""The costliest operators of a Chrome trace as PyTorch writes it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

NUM_ROWS = 20
_NAME_WIDTH = 44
_HOST = ("cpu_op", "user_annotation")
_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")


@dataclass(slots=True, kw_only=True)
class Operator:
    """All calls of one name. `self_us` is its own time, `total_us` with what it called inside."""

    name: str
    where: str
    """cpu or gpu."""
    calls: int = 0
    self_us: float = 0.0
    total_us: float = 0.0


def operators(trace: Mapping[str, Any]) -> list[Operator]:
    """Every operator and kernel, the costliest by its own time first."""
    found: dict[tuple[str, str], Operator] = {}
    lanes: dict[tuple[Any, Any, str], list[Mapping[str, Any]]] = defaultdict(list)
    for event in cast("list[Mapping[str, Any]]", trace["traceEvents"]):
        where = "cpu" if event.get("cat") in _HOST else "gpu" if event.get("cat") in _DEVICE else None
        if event.get("ph") == "X" and where is not None:
            lanes[event.get("pid"), event.get("tid"), where].append(event)
    for (_, _, where), events in lanes.items():
        for event, self_us in _with_own_time(events):
            name = str(event["name"])
            row = found.setdefault((name, where), Operator(name=name, where=where))
            row.calls += 1
            row.self_us += self_us
            row.total_us += event["dur"]
    return sorted(found.values(), key=lambda row: row.self_us, reverse=True)


def table(trace: Mapping[str, Any]) -> str:
    """The first NUM_ROWS of `operators`, one a line."""
    summary = trace["autoglm"]
    seconds = float(summary["seconds"])
    lines = [
        f"{summary['steps']} steps in {seconds:g} s",
        "",
        f"{'operator':{_NAME_WIDTH}}  on      calls    self ms   total ms  of time",
    ]
    for row in operators(trace)[:NUM_ROWS]:
        name = row.name if len(row.name) <= _NAME_WIDTH else row.name[: _NAME_WIDTH - 1] + "…"
        times = f"{row.self_us / 1e3:9.2f}  {row.total_us / 1e3:9.2f}  {row.self_us / 1e6 / seconds:7.1%}"
        lines.append(f"{name:{_NAME_WIDTH}}  {row.where}  {row.calls:8}  {times}")
    return "\n".join(lines)


def _with_own_time(events: Iterable[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], float]]:
    """Events of one thread or stream, each with its time less that of the events right inside it."""
    own: list[list[Any]] = []
    open_rows: list[list[Any]] = []
    for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
        while open_rows and open_rows[-1][0]["ts"] + open_rows[-1][0]["dur"] <= event["ts"]:
            open_rows.pop()
        if open_rows:
            open_rows[-1][1] -= event["dur"]
        row = [event, event["dur"]]
        own.append(row)
        open_rows.append(row)
    return [(event, max(0.0, self_us)) for event, self_us in own]

"""The same mixed traffic with the dynamic graph on and off: latency, peak key/value memory and layer-steps.

    python benchmarks/graph.py [--requests 60] [--exits lossless fixed] [--concurrency 1] [--plot graph.png]

Real servers, one with ENABLE_DYNAMIC_GRAPH=False and one for each exit mode, get the same requests in interleaved
rounds, so that whatever else the machine does falls on all alike. Requests are of the phone world's test split: text,
screenshots and speech in turn, greedy. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from charts import Panel, draw_panels
from servers import serving
from traffic import MODALITIES, Question, mixed_traffic

TIMEOUT_S = 300.0
OFF = "off"
# Key of a summary, its words, its unit.
ROWS = (
    ("latency_median_ms", "latency, median", "ms"),
    ("latency_p90_ms", "latency, p90", "ms"),
    ("peak_kv_mb", "peak keys and values", "MB"),
    ("mean_kv_mb", "mean keys and values", "MB"),
    ("layer_steps", "layer-steps", ""),
    ("encoder_runs", "encoder runs", ""),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    modality: str
    latency_s: float
    text: str
    graph: dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Side:
    """A server, what every request to it adds, and what came back."""

    name: str
    url: str
    fields: dict[str, Any]
    answers: list[Measured] = field(default_factory=list[Measured])

    def ask(self, client: httpx.Client, question: Question) -> Measured:
        body = {
            "model": "autoglm-phone-9b",
            "messages": [{"role": "user", "content": question.openai_content}],
            "temperature": 0,
            "max_tokens": 128,
            **self.fields,
        }
        began_s = time.perf_counter()
        answer = client.post(f"{self.url}/v1/chat/completions", json=body)
        latency_s = time.perf_counter() - began_s
        if answer.status_code != 200:
            raise RuntimeError(f"graph {self.name}: {answer.status_code} {answer.text}")
        content = answer.json()
        return Measured(
            modality=question.modality,
            latency_s=latency_s,
            text=content["choices"][0]["message"]["content"],
            graph=content["dynamic_graph"],
        )

    def of(self, modality: str) -> list[Measured]:
        return [answer for answer in self.answers if modality in (answer.modality, "all")]


def run(sides: Sequence[Side], requests: int, concurrency: int, seed: int) -> None:
    questions = list(mixed_traffic(requests, seed))
    with httpx.Client(timeout=TIMEOUT_S) as client, ThreadPoolExecutor(concurrency) as pool:
        for question in mixed_traffic(len(MODALITIES), seed + 1):  # warm-up: what is set up lazily, and the drafting
            for side in sides:
                side.ask(client, question)
        for number, start in enumerate(range(0, requests, concurrency)):
            wave = questions[start : start + concurrency]
            turn = number % len(sides)
            for side in (*sides[turn:], *sides[:turn]):
                side.answers += pool.map(lambda question, side=side: side.ask(client, question), wave)


def summary(side: Side, modality: str) -> dict[str, float]:
    answers = side.of(modality)
    latencies_s = sorted(answer.latency_s for answer in answers)
    return {
        "requests": len(answers),
        "latency_median_ms": round(1000 * statistics.median(latencies_s), 1),
        "latency_p90_ms": round(1000 * latencies_s[int(0.9 * (len(latencies_s) - 1))], 1),
        "peak_kv_mb": round(max(answer.graph["kv_bytes"] for answer in answers) / 1e6, 3),
        "mean_kv_mb": round(statistics.mean(answer.graph["kv_bytes"] for answer in answers) / 1e6, 3),
        "layer_steps": sum(answer.graph["layer_steps"] for answer in answers),
        "encoder_runs": sum(len(answer.graph["encoders_run"]) for answer in answers),
        "drafts_proposed": sum(answer.graph["drafts_proposed"] for answer in answers),
        "drafts_accepted": sum(answer.graph["drafts_accepted"] for answer in answers),
    }


def print_table(sides: Sequence[Side]) -> list[dict[str, Any]]:
    """A row per modality and figure; in brackets the ratio to the graph turned off."""
    results: list[dict[str, Any]] = []
    print(f"{'':>7} {'graph':<26}" + "".join(f"{side.name:>20}" for side in sides))
    for modality in (*MODALITIES, "all"):
        figures = {side.name: summary(side, modality) for side in sides}
        results.append({"modality": modality, **figures})
        for index, (key, words, unit) in enumerate(ROWS):
            base = figures[OFF][key]
            cells = [f"{figures[OFF][key]:>20,}"]
            for side in sides[1:]:
                value = figures[side.name][key]
                cells.append(f"{f'{value:,} ({value / base:.2f})':>20}" if base else f"{value:>20,}")
            label = f"{words} [{unit}]" if unit else words
            print(f"{'' if index else modality:>7} {label:<26}" + "".join(cells))
    return results


def plot(results: Sequence[dict[str, Any]], names: Sequence[str], path: Path) -> None:
    panels = [
        Panel(
            title=f"{words.capitalize()} [{unit}]" if unit else words.capitalize(),
            groups=tuple(result["modality"] for result in results),
            series={f"graph {name}": [result[name][key] for result in results] for name in names},
        )
        for key, words, unit in ROWS
        if key in ("latency_median_ms", "mean_kv_mb", "layer_steps")
    ]
    draw_panels(panels, path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/autoglm-phone-tiny"))
    parser.add_argument("--requests", type=int, default=60, help="of all three modalities together")
    parser.add_argument("--exits", nargs="+", choices=("lossless", "certified", "fixed"), default=["lossless", "fixed"])
    parser.add_argument("--depth", default="auto", help="auto, full or a number; a number goes with --exits fixed only")
    parser.add_argument("--concurrency", type=int, default=1, help="requests at once at each server")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--plot", type=Path, help="write the figures as a picture (PNG)")
    args = parser.parse_args()
    device = ("--device", args.device)
    with ExitStack() as servers:
        static = servers.enter_context(serving(args.checkpoint, device, {"ENABLE_DYNAMIC_GRAPH": "False"}))
        sides = [Side(name=OFF, url=static, fields={})]
        for mode in args.exits:  # a server each: nobody profits from what another's request left in the caches
            url = servers.enter_context(serving(args.checkpoint, device, {"ENABLE_DYNAMIC_GRAPH": "True"}))
            sides.append(Side(name=f"on, {mode}", url=url, fields={"exit": mode, "depth": args.depth}))
        run(sides, args.requests, args.concurrency, args.seed)
    results = print_table(sides)
    texts = {side.name: [answer.text for answer in side.answers] for side in sides}
    equal = {name: sum(a == b for a, b in zip(texts[OFF], texts[name], strict=True)) for name in list(texts)[1:]}
    for name, count in equal.items():
        print(f"answers equal to those with the graph off: {name}: {count} of {args.requests}")
    if args.plot is not None:
        plot(results, [side.name for side in sides], args.plot)
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    settings = {"depth": args.depth, "concurrency": args.concurrency, "seed": args.seed}
    report = {"benchmark": "graph", "machine": machine, **settings, "equal_answers": equal, "results": results}
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

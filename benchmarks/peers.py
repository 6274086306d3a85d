"""This engine, alone and inside Triton, beside vLLM's CPU build and transformers, in one run on one checkpoint.

    python benchmarks/peers.py [--quick] [--rounds 5] [--peers engine engine-int8 triton vllm transformers]

Every peer has its own environment and process; all stay up, and every round runs every row on every peer in turn, so
that whatever else the machine does falls on all alike. Medians and ratios to vLLM are printed, then one JSON line.
Weights are random (benchmarks/peer_checkpoint.py), precision is bfloat16. Prefill is a run of one token; decode is the
tokens after the first over the time that they add to it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peer_checkpoint import write_peer_checkpoint
from peer_environments import transformers_python, vllm_python
from PIL import Image, ImageDraw

WORKERS = Path(__file__).parent / "peer_workers"
CACHE = Path(__file__).resolve().parents[1] / ".cache" / "peers"
FIRST_FREE_ID, LAST_FREE_ID = 300, 4000
"""Ordinary text pieces of the tokenizer."""
BASELINE = "vllm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    name: str
    batch: int
    prompt_tokens: int
    new_tokens: int
    has_image: bool = False


# After a long prompt, enough tokens that their time stands out from the prompt's own from run to run.
CASES = (
    Case(name="batch 1", batch=1, prompt_tokens=128, new_tokens=64),
    Case(name="batch 8", batch=8, prompt_tokens=128, new_tokens=64),
    Case(name="2,000-token prompt", batch=1, prompt_tokens=2000, new_tokens=64),
    Case(name="8 x 2,000 tokens", batch=8, prompt_tokens=2000, new_tokens=128),
    Case(name="1080x2400 screenshot", batch=1, prompt_tokens=64, new_tokens=128, has_image=True),
)
QUICK = ("batch 1", "batch 8")


class Peer:
    """One worker process and the line protocol of peer_workers/loop.py."""

    def __init__(self, name: str, python: Path, script: str, arguments: Sequence[str], log_dir: Path) -> None:
        self.name = name
        self._log_path = log_dir / f"{name}.log"
        log = self._log_path.open("w", encoding="utf-8")
        command = [str(python), str(WORKERS / script), *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        log.close()
        self._answer()

    def seconds(self, case: Case, prompts: list[list[int]], max_tokens: int, image: Path) -> float:
        job = {"prompts": prompts, "max_tokens": max_tokens, "image": str(image) if case.has_image else None}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return self._answer()["seconds"]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            tail = self._log_path.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise RuntimeError(f"{self.name} ended; the end of {self._log_path}:\n{tail}")
        return json.loads(line)


def start_peers(names: Sequence[str], checkpoint: Path, threads: int) -> list[Peer]:
    here, common = Path(sys.executable), (str(checkpoint), str(threads), "bfloat16")
    makers = {
        "engine": lambda: (here, "engine_alone.py", (*common, "none")),
        "engine-int8": lambda: (here, "engine_alone.py", (*common, "int8")),
        "engine-int4": lambda: (here, "engine_alone.py", (*common, "int4")),
        "triton": lambda: (here, "engine_in_triton.py", (*common, "none")),
        "triton-int8": lambda: (here, "engine_in_triton.py", (*common, "int8")),
        "vllm": lambda: (vllm_python(CACHE), "vllm_cpu.py", common),
        "transformers": lambda: (transformers_python(CACHE), "transformers_generate.py", common),
    }
    peers: list[Peer] = []
    for name in names:
        python, script, arguments = makers[name]()
        began = time.perf_counter()
        peers.append(Peer(name, python, script, arguments, CACHE))
        print(f"{name}: up after {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return peers


def measure(
    peers: Sequence[Peer], cases: Sequence[Case], rounds: int, image: Path
) -> dict[str, dict[str, list[float]]]:
    """Row -> peer -> one figure a round: seconds of prefill, tokens per second of decode."""
    draw = random.Random(1)
    figures: dict[str, dict[str, list[float]]] = {}
    for number in range(rounds + 1):
        for case in cases:
            for peer in draw.sample(peers, len(peers)):
                prompts = [
                    [draw.randrange(FIRST_FREE_ID, LAST_FREE_ID) for _ in range(case.prompt_tokens)]
                    for _ in range(case.batch)
                ]
                first = peer.seconds(case, prompts, 1, image)
                whole = peer.seconds(case, prompts, case.new_tokens, image)
                if number == 0:  # warm-up
                    continue
                rate = case.batch * (case.new_tokens - 1) / max(whole - first, 1e-9)
                figures.setdefault(f"prefill, {case.name}", {}).setdefault(peer.name, []).append(first)
                figures.setdefault(f"decode, {case.name}", {}).setdefault(peer.name, []).append(rate)
                print(
                    f"round {number} {case.name} {peer.name}: {first:.2f} s, {rate:.1f}/s", file=sys.stderr, flush=True
                )
    return figures


def report(figures: dict[str, dict[str, list[float]]], names: Sequence[str]) -> list[dict[str, object]]:
    """Print medians and, where vLLM ran, how many times as fast each peer is."""
    rows: list[dict[str, object]] = []
    print(f"{'':<32}" + "".join(f"{name:>20}" for name in names))
    for row in sorted(figures):
        unit = "s" if row.startswith("prefill") else "tokens/s"
        medians = {name: statistics.median(values) for name, values in figures[row].items()}
        cells: list[str] = []
        for name in names:
            ratio = _ratio(figures[row], name, unit)
            shown = f"{medians[name]:.2f}" if unit == "s" else f"{medians[name]:.1f}"
            cells.append(f"{shown} ({ratio:.2f}x)" if ratio is not None else shown)
            rows.append({"row": row, "peer": name, "unit": unit, "median": medians[name], "ratio_to_vllm": ratio})
        print(f"{row + ', ' + unit:<32}" + "".join(f"{cell:>20}" for cell in cells))
    return rows


def _ratio(row: dict[str, list[float]], name: str, unit: str) -> float | None:
    """How many times vLLM's speed, the median over rounds; None without vLLM."""
    if BASELINE not in row:
        return None
    pairs = zip(row[name], row[BASELINE], strict=True)
    return statistics.median(theirs / ours if unit == "s" else ours / theirs for ours, theirs in pairs)


def draw_screenshot(path: Path) -> Path:
    """A 1080x2400 picture with something on it; what it shows does not matter to random weights."""
    picture = Image.new("RGB", (1080, 2400), "white")
    pen = ImageDraw.Draw(picture)
    for row in range(12):
        pen.rectangle((40, 60 + row * 190, 1040, 200 + row * 190), fill=(20 * row, 120, 255 - 20 * row))
    picture.save(path)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true", help="two rounds of the 128-token rows")
    parser.add_argument("--cases", nargs="+", choices=[case.name for case in CASES])
    parser.add_argument(
        "--peers", nargs="+", default=["engine", "engine-int8", "triton", "triton-int8", "vllm", "transformers"]
    )
    args = parser.parse_args()
    wanted = args.cases or (QUICK if args.quick else [case.name for case in CASES])
    cases = [case for case in CASES if case.name in wanted]
    rounds = 2 if args.quick else args.rounds
    CACHE.mkdir(parents=True, exist_ok=True)
    checkpoint = write_peer_checkpoint(CACHE / "checkpoint")
    image = draw_screenshot(CACHE / "screenshot.png")
    peers = start_peers(args.peers, checkpoint, args.threads)
    try:
        figures = measure(peers, cases, rounds, image)
    finally:
        for peer in peers:
            peer.close()
    rows = report(figures, args.peers)
    print(json.dumps({"benchmark": "peers", "cores": os.cpu_count(), "rounds": rounds, "rows": rows}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

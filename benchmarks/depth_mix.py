"""One batch, half of it shallow: when does each half finish, and how many layers did it take?

    python benchmarks/depth_mix.py [--checkpoint DIR] [--batch 16] [--depth 6] [--rounds 5] [--tokens 64]

Four mixes of the same prompts run in every round: all rows at full depth, half of them fixed at --depth, all lossless,
half of them fixed beside lossless rows. Medians over the rounds; layer-steps are checked against what each row asked
for (a fixed row that drafts beside lossless rows also runs drafts that prove wrong). With `--clock cpu` times are the
process's CPU time, which other programs disturb less (use --threads 1).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from engine import COMMANDS, encode

from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.service import DecoderService
from autoglm_protocol.events import Finished, StreamEvent, TokenDelta
from autoglm_protocol.plan import ExecutionPlan, ExitMode
from autoglm_protocol.sampling import SamplingParams
from autoglm_protocol.wire import DecodeRequest

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    depth: int
    exit_mode: ExitMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    name: str
    first: Half
    second: Half


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    first_s: float
    """Until the last token of the first half."""
    second_s: float
    layer_steps: int


def run(
    service: DecoderService, prompts: Sequence[np.ndarray], mix: Mix, tokens: int, clock: Callable[[], float]
) -> Outcome:
    halves = [mix.first if row % 2 == 0 else mix.second for row in range(len(prompts))]
    ended_s: dict[int, float] = {}
    steps: dict[int, int] = {}
    has_drafted: dict[int, bool] = {}
    failures: list[StreamEvent] = []
    done = threading.Event()

    def emit(row: int, event: StreamEvent) -> None:
        if isinstance(event, TokenDelta):
            return
        if not isinstance(event, Finished):
            failures.append(event)
            done.set()
            return
        graph = event.dynamic_graph
        steps[row], has_drafted[row] = int(str(graph["layer_steps"])), bool(graph["drafts_proposed"])
        ended_s[row] = clock() - began_s
        if len(ended_s) == len(prompts):
            done.set()

    began_s = clock()
    for row, (ids, half) in enumerate(zip(prompts, halves, strict=True)):
        plan = ExecutionPlan(
            enabled=True,
            run_vision=False,
            run_speech=False,
            num_layers=service.config.text.num_layers,
            depth=half.depth,
            exit_mode=half.exit_mode,
            reason="benchmark",
        )
        sampling = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
        request = DecodeRequest(tag=f"{mix.name}-{row}-{began_s}", prompt_ids=ids, sampling=sampling, plan=plan)
        service.add(request, lambda event, row=row: emit(row, event))
    done.wait()
    if failures:
        raise RuntimeError(f"a request did not finish: {failures[0]}")
    for row, half in enumerate(halves):
        asked = half.depth * (len(prompts[row]) + tokens - 1)
        is_exact = half.exit_mode is ExitMode.FIXED and not has_drafted[row]
        assert not is_exact or steps[row] == asked, "a row ran layers that it did not ask for"
    return Outcome(
        first_s=max(ended_s[row] for row in range(0, len(prompts), 2)),
        second_s=max(ended_s[row] for row in range(1, len(prompts), 2)),
        layer_steps=sum(steps.values()),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/autoglm-phone-tiny"))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    args = parser.parse_args()
    options = EngineOptions(device="cpu", prefix_cache=False, threads=args.threads)
    service = DecoderService.from_checkpoint(args.checkpoint, options)
    full = Half(depth=service.config.text.num_layers, exit_mode=ExitMode.FIXED)
    shallow = Half(depth=args.depth, exit_mode=ExitMode.FIXED)
    lossless = Half(depth=full.depth, exit_mode=ExitMode.LOSSLESS)
    mixes = (
        Mix(name="all full", first=full, second=full),
        Mix(name=f"{args.depth} and full", first=shallow, second=full),
        Mix(name="all lossless", first=lossless, second=lossless),
        Mix(name=f"{args.depth} and lossless", first=shallow, second=lossless),
    )
    prompts = encode(
        args.checkpoint, [COMMANDS[i // 2 % len(COMMANDS)] for i in range(args.batch)], service.context_tokens
    )
    outcomes: dict[str, list[Outcome]] = {mix.name: [] for mix in mixes}
    for number in range(args.rounds + 1):
        for mix in mixes:
            outcome = run(service, prompts, mix, args.tokens, CLOCKS[args.clock])
            if number:  # the first round warms up
                outcomes[mix.name].append(outcome)
    service.shutdown()
    results: list[dict[str, object]] = []
    print(f"{'mix':>14} {'first half s':>13} {'second half s':>14} {'layer-steps':>12}")
    for mix in mixes:
        first_s = statistics.median(outcome.first_s for outcome in outcomes[mix.name])
        second_s = statistics.median(outcome.second_s for outcome in outcomes[mix.name])
        layer_steps = int(statistics.median(outcome.layer_steps for outcome in outcomes[mix.name]))
        print(f"{mix.name:>14} {first_s:>13.2f} {second_s:>14.2f} {layer_steps:>12}")
        results.append({"mix": mix.name, "first_s": first_s, "second_s": second_s, "layer_steps": layer_steps})
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    print(json.dumps({"benchmark": "depth_mix", "clock": args.clock, "machine": machine, "results": results}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

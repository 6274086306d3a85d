"""What depth is worth on held-out requests: lossless against full depth, and fixed exits, in the engine alone.

    python benchmarks/lossless.py [--requests 501] [--depth 6] [--batch 16]

Requests are of the phone world's test split (screens, wordings and voices that training never saw): text, screenshots
and speech in turn, greedy, to their natural end, without prefix cache. Every pair of runs is interleaved, the first of
the two in turn. Lossless answers must equal full depth's, token for token; otherwise the exit status is 1. Prints
tables, then one JSON line.

Speed is time of the decoder, encoders excluded: `whole` from the request to its last token, `decode` from the first
token on. It is wall time, or with `--clock cpu` the process's CPU time, which other programs disturb less.
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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prepared import Prepared, prepare
from traffic import MODALITIES, mixed_traffic

from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.service import DecoderService
from autoglm_protocol.events import Failed, Finished, StreamEvent, TokenDelta
from autoglm_protocol.plan import ExitMode
from autoglm_protocol.wire import DecodeRequest

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(slots=True, kw_only=True)
class Answer:
    began_s: float
    first_s: float = 0.0
    end_s: float = 0.0
    ids: list[int] = field(default_factory=list[int])
    graph: dict[str, Any] = field(default_factory=dict[str, Any])
    failure: Exception | None = None

    @property
    def whole_s(self) -> float:
        return self.end_s - self.began_s

    @property
    def decode_s(self) -> float:
        return self.end_s - self.first_s


class Runner:
    """Runs requests at once and waits for the last token of the last of them."""

    def __init__(self, service: DecoderService, clock: Callable[[], float]) -> None:
        self._service = service
        self._clock = clock
        self._num_runs = 0

    def run(self, requests: Sequence[DecodeRequest]) -> list[Answer]:
        self._num_runs += 1
        answers: list[Answer] = []
        left = threading.Semaphore(0)
        for index, request in enumerate(requests):
            answer = Answer(began_s=self._clock())
            answers.append(answer)

            def emit(event: StreamEvent, answer: Answer = answer) -> None:
                if isinstance(event, TokenDelta):
                    if not answer.ids:
                        answer.first_s = self._clock()
                    answer.ids.extend(event.token_ids)
                    return
                answer.end_s = self._clock()
                if isinstance(event, Finished):
                    answer.graph = dict(event.dynamic_graph)
                elif isinstance(event, Failed):
                    answer.failure = event.error
                left.release()

            self._service.add(replace(request, tag=f"{self._num_runs}-{index}"), emit)
        for _ in requests:
            left.acquire()
        for answer in answers:
            if answer.failure is not None:
                raise answer.failure
        return answers


def at(request: DecodeRequest, mode: ExitMode, depth: int, **sampling: Any) -> DecodeRequest:
    """The same request with another exit mode and depth."""
    assert request.plan is not None
    plan = replace(request.plan, exit_mode=mode, depth=depth)
    return replace(request, plan=plan, sampling=replace(request.sampling, **sampling))


class Comparison:
    """Two ways of running the same requests, in interleaved groups of `size`."""

    def __init__(self, runner: Runner, size: int) -> None:
        self.size = size
        self._runner = runner
        self.pairs: list[tuple[Answer, Answer]] = []
        self.group_s: list[tuple[float, float]] = []

    def add(self, one: Sequence[DecodeRequest], other: Sequence[DecodeRequest]) -> None:
        if len(self.group_s) % 2:
            second, first = self._runner.run(other), self._runner.run(one)
        else:
            first, second = self._runner.run(one), self._runner.run(other)
        self.pairs += zip(first, second, strict=True)
        self.group_s.append((_wall_s(first), _wall_s(second)))

    @property
    def num_equal(self) -> int:
        return sum(a.ids == b.ids for a, b in self.pairs)


def _wall_s(answers: Sequence[Answer]) -> float:
    return max(a.end_s for a in answers) - min(a.began_s for a in answers)


def ratios(pairs: Sequence[tuple[Answer, Answer]]) -> dict[str, float]:
    """How many times faster the second of each pair was: of summed times, and the median of single requests."""
    spoken = [(a, b) for a, b in pairs if len(a.ids) > 1 and len(b.ids) > 1]
    return {
        "whole": round(sum(a.whole_s for a, _ in pairs) / sum(b.whole_s for _, b in pairs), 3),
        "whole_median": round(statistics.median(a.whole_s / b.whole_s for a, b in pairs), 3),
        "decode": round(sum(a.decode_s for a, _ in spoken) / sum(b.decode_s for _, b in spoken), 3),
        "decode_median": round(statistics.median(a.decode_s / b.decode_s for a, b in spoken), 3),
    }


def lossless_alone(runner: Runner, prepared: Sequence[Prepared], full: int) -> dict[str, Any]:
    """Batch 1: every request at full depth and lossless."""
    compared = Comparison(runner, 1)
    for number, item in enumerate(prepared, start=1):
        compared.add([at(item.decode, ExitMode.FIXED, full)], [at(item.decode, ExitMode.LOSSLESS, full)])
        if number % 60 == 0:
            print(f"  {number} of {len(prepared)}: {compared.num_equal} equal", flush=True)
    print(f"{'lossless / full depth, batch 1':<32} {'n':>5} {'equal':>6} {'whole':>7} {'decode':>7} {'kept':>6}")
    rows: list[dict[str, Any]] = []
    for modality in (*MODALITIES, "all"):
        chosen = [p for p, item in zip(compared.pairs, prepared, strict=True) if modality in (item.modality, "all")]
        proposed = sum(b.graph["drafts_proposed"] for _, b in chosen)
        kept = sum(b.graph["drafts_accepted"] for _, b in chosen) / proposed if proposed else None
        equal = sum(a.ids == b.ids for a, b in chosen)
        row = {"modality": modality, "requests": len(chosen), "equal": equal, **ratios(chosen), "drafts_kept": kept}
        rows.append(row)
        shown = "" if kept is None else f"{kept:.2f}"
        print(f"{modality:<32} {len(chosen):>5} {equal:>6} {row['whole']:>7.2f} {row['decode']:>7.2f} {shown:>6}")
    return {"rows": rows, "unequal": len(compared.pairs) - compared.num_equal}


def lossless_batch(runner: Runner, prepared: Sequence[Prepared], full: int, size: int, groups: int) -> dict[str, Any]:
    """Groups of `size` requests at once. Answers are compared too; rows end at different times, as they do in life."""
    compared = Comparison(runner, size)
    for start in range(0, min(groups * size, len(prepared) - size + 1), size):
        group = [item.decode for item in prepared[start : start + size]]
        compared.add([at(d, ExitMode.FIXED, full) for d in group], [at(d, ExitMode.LOSSLESS, full) for d in group])
    ratio = statistics.median(a / b for a, b in compared.group_s)
    print(f"lossless / full depth, batch {size}: {ratio:.2f} (median of {len(compared.group_s)} groups), ", end="")
    print(f"{compared.num_equal} of {len(compared.pairs)} answers equal", flush=True)
    return {
        "batch": size,
        "groups": len(compared.group_s),
        "ratio_median": round(ratio, 3),
        "unequal": len(compared.pairs) - compared.num_equal,
    }


def fixed_depth(runner: Runner, texts: Sequence[Prepared], depth: int, full: int, size: int) -> dict[str, Any]:
    """Text requests at a fixed exit, as many tokens as at full depth, whatever they say."""
    compared = Comparison(runner, size)
    fixed = {"ignore_eos": True, "max_tokens": 48}
    for start in range(0, len(texts) - size + 1, size):
        group = [item.decode for item in texts[start : start + size]]
        compared.add(
            [at(d, ExitMode.FIXED, full, **fixed) for d in group],
            [at(d, ExitMode.FIXED, depth, **fixed) for d in group],
        )
    ratio = statistics.median(a / b for a, b in compared.group_s)
    print(
        f"fixed depth {depth} / full depth, batch {size}: {ratio:.2f} (median of {len(compared.group_s)})", flush=True
    )
    return {"depth": depth, "batch": size, "groups": len(compared.group_s), "ratio_median": round(ratio, 3)}


def mixed_depths(runner: Runner, texts: Sequence[Prepared], depth: int, full: int, size: int) -> dict[str, Any]:
    """Half of each batch shallow, half full, against all of it at full depth: when the shallow half is done."""
    half = size // 2
    fixed = {"ignore_eos": True, "max_tokens": 48}
    compared = Comparison(runner, size)
    for start in range(0, len(texts) - size + 1, size):
        group = [item.decode for item in texts[start : start + size]]
        depths = [depth if index < half else full for index in range(size)]
        compared.add(
            [at(d, ExitMode.FIXED, full, **fixed) for d in group],
            [at(d, ExitMode.FIXED, n, **fixed) for d, n in zip(group, depths, strict=True)],
        )
    shallow = [p for index, p in enumerate(compared.pairs) if index % size < half]
    deep = [p for index, p in enumerate(compared.pairs) if index % size >= half]
    result = {
        "batch": size,
        "depth": depth,
        "shallow_half_speedup": round(statistics.median(a.whole_s / b.whole_s for a, b in shallow), 3),
        "full_half_speedup": round(statistics.median(a.whole_s / b.whole_s for a, b in deep), 3),
        "layer_steps": sum(b.graph["layer_steps"] for _, b in compared.pairs),
        "layer_steps_all_full": sum(a.graph["layer_steps"] for a, _ in compared.pairs),
    }
    print(
        f"half depth {depth}, half full, batch {size}, against all full: shallow half "
        f"{result['shallow_half_speedup']}, full half {result['full_half_speedup']}, layer-steps "
        f"{result['layer_steps'] / result['layer_steps_all_full']:.2f}"
    )
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/autoglm-phone-tiny"))
    parser.add_argument("--requests", type=int, default=501)
    parser.add_argument("--seed", type=int, default=515)
    parser.add_argument("--depth", type=int, default=6, help="the fixed exit that is measured")
    parser.add_argument("--batch", type=int, default=16, help="the large batch")
    parser.add_argument("--groups", type=int, default=12, help="batches a comparison")
    parser.add_argument("--threads", type=int, help="of torch; one per core by default, one is best on a busy machine")
    parser.add_argument(
        "--clock", choices=tuple(CLOCKS), default="wall", help="cpu, with --threads 1, on a busy machine"
    )
    args = parser.parse_args()
    options = EngineOptions(device="cpu", prefix_cache=False, threads=args.threads)
    service = DecoderService.from_checkpoint(args.checkpoint, options)
    full, runner = service.config.text.num_layers, Runner(service, CLOCKS[args.clock])
    prepared = prepare(args.checkpoint, service, list(mixed_traffic(args.requests, args.seed)))
    for item in prepared[:6]:  # warm-up: allocations, and the draft controller's first measurements
        runner.run([at(item.decode, ExitMode.FIXED, full)])
        runner.run([at(item.decode, ExitMode.LOSSLESS, full)])
    texts = [item for item in prepared if item.modality == "text"][: args.groups * args.batch]
    report = {
        "lossless": lossless_alone(runner, prepared, full),
        "lossless_batch": lossless_batch(runner, prepared, full, args.batch, args.groups),
        "fixed": [
            fixed_depth(runner, texts[: args.groups], args.depth, full, 1),
            fixed_depth(runner, texts[: args.groups * 8], args.depth, full, 8),
        ],
        "mixed": mixed_depths(runner, texts, args.depth, full, args.batch),
    }
    service.shutdown()
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    print(json.dumps({"benchmark": "lossless", "machine": machine, "seed": args.seed, "clock": args.clock, **report}))
    unequal = report["lossless"]["unequal"] + report["lossless_batch"]["unequal"]
    return 1 if unequal else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""The engine alone, without Triton: tokens per second by exit mode, depth and batch size, in interleaved rounds.

    python benchmarks/engine.py [--checkpoint DIR] [--batch 1 8 16] [--rounds 5] [--tokens 64] [--threads N]

Every round runs every setting once, so that whatever else the machine does falls on all of them alike; medians and the
ratio to full depth are printed, then one JSON line. Lossless answers are compared with full depth's, token by token.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.service import DecoderService
from autoglm_backend.models.config import load_model_config
from autoglm_backend.preprocess.chat_template import load_chat_template
from autoglm_protocol.chat import ChatOptions, Message, Role, TextPart
from autoglm_protocol.events import Finished, StreamEvent, TokenDelta
from autoglm_protocol.plan import ExecutionPlan, ExitMode
from autoglm_protocol.sampling import SamplingParams
from autoglm_protocol.wire import DecodeRequest

COMMANDS = (
    "Open WeChat",
    "Go back",
    "打开微信",
    "Scroll down",
    "Who are you?",
    "Wait two seconds",
    "回到桌面",
    "Type hello",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    name: str
    exit_mode: ExitMode
    depth: int


class Batch:
    """Collects the tokens of several requests and waits for all of them."""

    def __init__(self, size: int) -> None:
        self.ids: list[list[int]] = [[] for _ in range(size)]
        self.graphs: list[dict[str, object]] = []
        self._left = size
        self._lock = threading.Lock()
        self.done = threading.Event()

    def emit(self, row: int, event: StreamEvent) -> None:
        if isinstance(event, TokenDelta):
            self.ids[row].extend(event.token_ids)
            return
        with self._lock:
            if isinstance(event, Finished):
                self.graphs.append(dict(event.dynamic_graph))
            self._left -= 1
            if not self._left:
                self.done.set()


def run_batch(
    service: DecoderService, prompts: Sequence[np.ndarray], setting: Setting, tokens: int
) -> tuple[float, Batch]:
    """Seconds from the first request to the last token, and what was generated."""
    num_layers = service.config.text.num_layers
    plan = ExecutionPlan(
        enabled=True,
        run_vision=False,
        run_speech=False,
        num_layers=num_layers,
        depth=setting.depth,
        exit_mode=setting.exit_mode,
        reason="benchmark",
    )
    sampling = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
    batch = Batch(len(prompts))
    began = time.perf_counter()
    for row, ids in enumerate(prompts):
        request = DecodeRequest(tag=f"{setting.name}-{row}-{began}", prompt_ids=ids, sampling=sampling, plan=plan)
        service.add(request, lambda event, row=row: batch.emit(row, event))
    batch.done.wait()
    return time.perf_counter() - began, batch


def encode(checkpoint: Path, texts: Sequence[str], context_tokens: int) -> list[np.ndarray]:
    template = load_chat_template(checkpoint, load_model_config(checkpoint))
    return [
        template.encode(
            (Message(role=Role.USER, parts=(TextPart(text=text),)),),
            ChatOptions(),
            image_tokens=[],
            audio_tokens=[],
            context_tokens=context_tokens,
        ).ids
        for text in texts
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/autoglm-phone-tiny"))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, help="default: one per core")
    args = parser.parse_args()
    options = EngineOptions(device="cpu", prefix_cache=False, threads=args.threads)
    service = DecoderService.from_checkpoint(args.checkpoint, options)
    num_layers = service.config.text.num_layers
    settings = [
        Setting(name="full", exit_mode=ExitMode.FIXED, depth=num_layers),
        *(Setting(name=f"fixed {depth}", exit_mode=ExitMode.FIXED, depth=depth) for depth in service.exits),
    ]
    if service.exits:
        settings.append(Setting(name="lossless", exit_mode=ExitMode.LOSSLESS, depth=num_layers))
    results: list[dict[str, object]] = []
    print(f"{'batch':>5} {'setting':>10} {'tokens/s':>9} {'to full':>8} {'accepted':>9} {'equal':>6}")
    for size in args.batch:
        prompts = encode(args.checkpoint, [COMMANDS[i % len(COMMANDS)] for i in range(size)], service.context_tokens)
        rates: dict[str, list[float]] = {s.name: [] for s in settings}
        last: dict[str, Batch] = {}
        for setting in settings:  # warm-up: allocations, and the draft controller's first measurements
            run_batch(service, prompts, setting, args.tokens)
        for _ in range(args.rounds):
            for setting in settings:
                seconds, batch = run_batch(service, prompts, setting, args.tokens)
                rates[setting.name].append(size * args.tokens / seconds)
                last[setting.name] = batch
        full = statistics.median(rates["full"])
        for setting in settings:
            rate = statistics.median(rates[setting.name])
            proposed = sum(int(str(g["drafts_proposed"])) for g in last[setting.name].graphs)
            accepted = sum(int(str(g["drafts_accepted"])) for g in last[setting.name].graphs)
            share = accepted / proposed if proposed else None
            equal = last[setting.name].ids == last["full"].ids
            shown = "" if share is None else f"{share:.2f}"
            print(f"{size:>5} {setting.name:>10} {rate:>9.1f} {rate / full:>8.2f} {shown:>9} {equal!s:>6}", flush=True)
            results.append(
                {
                    "batch": size,
                    "setting": setting.name,
                    "tokens_per_s": round(rate, 1),
                    "ratio_to_full": round(rate / full, 3),
                    "draft_acceptance": share,
                    "equal_to_full": equal,
                }
            )
    service.shutdown()
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    print(json.dumps({"benchmark": "engine", "machine": machine, "rounds": args.rounds, "results": results}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""What a step costs beside the model: scheduling, block tables, sampling and detokenizing, as shares of the step.

    python benchmarks/host_loop.py [--checkpoint DIR] [--dtype bfloat16] [--quantization int8] [--batch 8] [--rounds 5]

Decodes at full depth in the engine alone, with a clock around what computes: decoder layers (their attention included),
final norm and output head. What is left of a step is the host's. Text is made in another process, Triton's
BLS model; its time per step is measured on the same tokens and counted with the rest. Prints a table, then one JSON
line; medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine import COMMANDS, Setting, encode, run_batch

from autoglm_backend.bls.detokenize import Detokenizer
from autoglm_backend.engine.engine import Engine
from autoglm_backend.engine.exits import Exits
from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.service import DecoderService
from autoglm_backend.models.decoder import TextDecoder
from autoglm_backend.preprocess.tokenizer import load_tokenizer
from autoglm_protocol.plan import ExitMode


class Clock:
    """Seconds spent inside the functions that it was put around."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.calls = 0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - began
                self.calls += 1

        return timed

    def reset(self) -> None:
        self.seconds, self.calls = 0.0, 0


def around_method(clock: Clock, owner: type, name: str) -> None:
    setattr(owner, name, clock.around(getattr(owner, name)))


def detokenize_s(answers: list[list[int]], checkpoint: Path) -> float:
    """Seconds that the text of these answers takes, a token at a time, as the pipeline feeds them."""
    table = load_tokenizer(checkpoint).token_table()
    began = time.perf_counter()
    for ids in answers:
        detokenizer = Detokenizer(table)
        for token in ids:
            detokenizer.feed((token,))
        detokenizer.finish()
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/autoglm-phone-tiny"))
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--quantization", default="auto")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    step, model = Clock(), Clock()
    around_method(step, Engine, "_step")
    around_method(model, TextDecoder, "run_span")
    for name in ("_normed", "_logits"):
        around_method(model, Exits, name)
    options = EngineOptions(device="cpu", dtype=args.dtype, quantization=args.quantization, prefix_cache=False)
    service = DecoderService.from_checkpoint(args.checkpoint, options)
    layers = service.config.text.num_layers
    full = Setting(name="full", exit_mode=ExitMode.FIXED, depth=layers)
    prompts = encode(args.checkpoint, [COMMANDS[i % len(COMMANDS)] for i in range(args.batch)], service.context_tokens)
    rounds: list[dict[str, float]] = []
    print(f"{'step ms':>8} {'model':>8} {'host ms':>8} {'text ms':>8} {'share':>6}")
    for number in range(args.rounds + 1):
        step.reset()
        model.reset()
        _, batch = run_batch(service, prompts, full, args.tokens)
        text_s = detokenize_s(batch.ids, args.checkpoint)
        if number == 0:  # warm-up
            continue
        step_ms, model_ms, text_ms = (1e3 * s / step.calls for s in (step.seconds, model.seconds, text_s))
        host_ms = step_ms - model_ms
        share = (host_ms + text_ms) / step_ms
        rounds.append(
            {"step_ms": step_ms, "model_ms": model_ms, "host_ms": host_ms, "text_ms": text_ms, "share": share}
        )
        print(f"{step_ms:>8.3f} {model_ms:>8.3f} {host_ms:>8.3f} {text_ms:>8.3f} {share:>6.1%}", flush=True)
    service.shutdown()
    medians = {name: round(statistics.median(r[name] for r in rounds), 4) for name in rounds[0]}
    print(json.dumps({"benchmark": "host_loop", "batch": args.batch, "rounds": args.rounds, **medians}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

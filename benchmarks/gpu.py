"""Decoding on a GPU: tokens per second by precision, batch size and exit mode, with CUDA graphs and without.

    python benchmarks/gpu.py [--checkpoint DIR] [--precisions bfloat16 float16 int8 fp8] [--batch 1 8 32]
                             [--modes full lossless "fixed 12"] [--rounds 5] [--tokens 128] [--prompt-tokens 512]

`make bench-gpu` runs it. A precision is a dtype, or int8 or fp8 weights beside bfloat16. Settings of one precision are
interleaved in rounds; medians are printed, then one JSON line. Modes that the checkpoint has no exits for are left
out. `--device cpu` tries the script where there is no GPU (no graphs, no fp8).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

import numpy as np
import torch
from engine import Setting, run_batch

from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.service import DecoderService
from autoglm_protocol.plan import ExitMode

WEIGHTS_ONLY = ("int8", "fp8")


def engine_options(precision: str, device: str, cuda_graphs: bool, batch: int) -> EngineOptions:
    is_quantized = precision in WEIGHTS_ONLY
    return EngineOptions(
        device=device,
        dtype="bfloat16" if is_quantized else precision,
        quantization=precision if is_quantized else "none",
        cuda_graphs=cuda_graphs,
        max_batch_size=batch,
        prefix_cache=False,
    )


def settings_of(service: DecoderService, modes: list[str]) -> list[Setting]:
    """The modes that this checkpoint has exits for."""
    num_layers = service.config.text.num_layers
    found: list[Setting] = []
    for mode in modes:
        name, _, depth = mode.partition(" ")
        if name == "full":
            found.append(Setting(name=mode, exit_mode=ExitMode.FIXED, depth=num_layers))
        elif name == "lossless" and service.exits:
            found.append(Setting(name=mode, exit_mode=ExitMode.LOSSLESS, depth=num_layers))
        elif name == "fixed" and int(depth) in service.exits:
            found.append(Setting(name=mode, exit_mode=ExitMode.FIXED, depth=int(depth)))
    return found


def measure(
    service: DecoderService, settings: list[Setting], size: int, args: argparse.Namespace
) -> tuple[dict[str, float], dict[str, list[list[int]]]]:
    """Median tokens per second and the answers of each setting at one batch size."""
    chosen = np.random.default_rng(size)
    vocab = service.config.text.vocab_size
    prompts = [chosen.integers(3, vocab // 2, args.prompt_tokens).astype(np.int32) for _ in range(size)]
    rates: dict[str, list[float]] = {setting.name: [] for setting in settings}
    ids: dict[str, list[list[int]]] = {}
    for number in range(args.rounds + 1):  # the first is a warm-up: graphs are captured there
        for setting in settings:
            seconds, batch = run_batch(service, prompts, setting, args.tokens)
            ids[setting.name] = batch.ids
            if number:
                rates[setting.name].append(size * args.tokens / seconds)
    return {name: statistics.median(values) for name, values in rates.items()}, ids


def run_precision(precision: str, args: argparse.Namespace) -> list[dict[str, object]]:
    """Every batch and mode, without graphs and then with them."""
    is_cuda = args.device == "cuda"
    answers: dict[tuple[int, str], list[list[int]]] = {}
    results: list[dict[str, object]] = []
    for cuda_graphs in (False, True) if is_cuda else (False,):
        if is_cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        options = engine_options(precision, args.device, cuda_graphs, max(args.batch))
        try:
            service = DecoderService.from_checkpoint(args.checkpoint, options)
        except ValueError as error:
            print(f"{precision:>9} {error}")
            break
        settings = settings_of(service, args.modes)
        for size in args.batch:
            rates, ids = measure(service, settings, size, args)
            gib = torch.cuda.max_memory_allocated() / 2**30 if is_cuda else None
            for name, rate in rates.items():
                is_equal = answers.setdefault((size, name), ids[name]) == ids[name]
                shown = "-" if gib is None else f"{gib:.1f}"
                row = f"{precision:>9} {cuda_graphs!s:>6} {size:>5} {name:>9} {rate:>9.1f} {shown:>6} {is_equal!s:>6}"
                print(row, flush=True)
                results.append(
                    {
                        "precision": precision,
                        "cuda_graphs": cuda_graphs,
                        "batch": size,
                        "mode": name,
                        "tokens_per_s": round(rate, 1),
                        "peak_gib": gib,
                        "equal_to_no_graphs": is_equal,
                    }
                )
        service.shutdown()
        del service
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/autoglm-phone-tiny"))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--precisions", nargs="+", default=["bfloat16", "float16", "int8", "fp8"])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--modes", nargs="+", default=["full", "lossless", "fixed 12"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--prompt-tokens", type=int, default=512)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print("torch finds no CUDA GPU here", file=sys.stderr)
        return 2
    device = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    print(f"{device}, prompts of {args.prompt_tokens} tokens, answers of {args.tokens}")
    print(f"{'precision':>9} {'graphs':>6} {'batch':>5} {'mode':>9} {'tokens/s':>9} {'GiB':>6} {'equal':>6}")
    results = [result for precision in args.precisions for result in run_precision(precision, args)]
    used = {"tokens": args.tokens, "prompt_tokens": args.prompt_tokens, "rounds": args.rounds}
    print(json.dumps({"benchmark": "gpu", "device": device, "torch": torch.__version__, **used, "results": results}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

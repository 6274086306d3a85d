"""Block-sparse against dense prefill: what it costs in answers and what it saves in time, by prompt length and budget.

    python benchmarks/sparse_prefill.py [--checkpoint DIR] [--lengths 2048 8192] [--budgets 512 1024] [--rounds 3]

The prompt is a long conversation of phone commands. Both ways read it in the engine's chunks over the same cache; the
error is that of the last positions' logits, teacher-forced: mean KL divergence from dense in nats, and how often the
greedy token is the same. Rounds are interleaved; `--clock cpu` times the process instead of the wall, for a machine
that others use too (then with `--threads 1`). A table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from engine import COMMANDS
from torch import Tensor
from torch.nn import functional as F

from autoglm_backend.engine.kernel_choice import prepare_decoder
from autoglm_backend.engine.kv_cache import KVCache, PagedAttention
from autoglm_backend.engine.loading import load_decoder, resolve_device
from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.step_tables import RowSpan, SegmentTables
from autoglm_backend.models.config import load_model_config
from autoglm_backend.models.decoder import TextDecoder
from autoglm_backend.preprocess.chat_template import load_chat_template
from autoglm_protocol.chat import ChatOptions, Message, Role, TextPart

JUDGED = 128
"""Last positions of the prompt whose logits are compared."""
ANSWERS = (
    '<think>The home screen shows the app.</think><answer>do(action="Tap", element=[500,500])</answer>',
    '<think>返回上一页</think><answer>do(action="Back")</answer>',
    '<think>The list goes on below.</think><answer>do(action="Swipe", start=[500,800], end=[500,200])</answer>',
)


def conversation(checkpoint: Path, length: int) -> np.ndarray:
    """The first `length` tokens of many turns, always the same."""
    chosen = random.Random(11)
    messages: list[Message] = []
    for _ in range(length // 8):
        messages.append(Message(role=Role.USER, parts=(TextPart(text=chosen.choice(COMMANDS)),)))
        messages.append(Message(role=Role.ASSISTANT, parts=(TextPart(text=chosen.choice(ANSWERS)),)))
    template = load_chat_template(checkpoint, load_model_config(checkpoint))
    prepared = template.encode(tuple(messages), ChatOptions(), image_tokens=[], audio_tokens=[], context_tokens=1 << 30)
    return prepared.ids[:length]


@torch.inference_mode()
def prefill(decoder: TextDecoder, cache: KVCache, ids: np.ndarray, chunk: int) -> Tensor:
    """Read the prompt as the engine does. Returns the logits [JUDGED, V] of its last positions."""
    size = cache.block_tokens
    blocks = np.arange(-(-len(ids) // size), dtype=np.int64)[None]
    states: list[Tensor] = []
    for start in range(0, len(ids), chunk):
        count = min(chunk, len(ids) - start)
        position = np.arange(start, start + count)
        tables = SegmentTables(
            rows=(RowSpan(start, count, count),),
            blocks_BN=np.ascontiguousarray(blocks[:, : -(-(start + count) // size)]),
            row_T=np.zeros(count, dtype=np.int64),
            position_T=position,
            slots_T=position,
        )
        device = decoder.norm.weight.device
        hidden = decoder.embed_tokens(torch.from_numpy(ids[start : start + count].astype(np.int64)).to(device))
        rotation = decoder.rotation(torch.from_numpy(position).expand(3, -1).to(device))
        states.append(decoder.run_span(0, decoder.config.num_layers, hidden, rotation, PagedAttention(cache, tables)))
    return decoder.logits(torch.cat(states)[-JUDGED:]).float()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/autoglm-phone-tiny"))
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 8192])
    parser.add_argument("--budgets", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chunk", type=int, default=512)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    args = parser.parse_args()
    options = EngineOptions(device=args.device, dtype=args.dtype, threads=args.threads)
    device, dtype = resolve_device(options)
    torch.set_num_threads(options.num_threads)
    config = load_model_config(args.checkpoint).text
    decoder = load_decoder(args.checkpoint, config, device, dtype)
    prepare_decoder(decoder, options.quantization, options.block_tokens)
    clock: Callable[[], float] = time.process_time if args.clock == "cpu" else time.perf_counter
    num_blocks = -(-max(args.lengths) // options.block_tokens)
    ways: dict[int | None, KVCache] = {
        budget: KVCache(config, num_blocks, options.block_tokens, dtype, device, sparse_prefill=budget)
        for budget in (None, *args.budgets)
    }
    results: list[dict[str, object]] = []
    print(f"{'tokens':>6} {'budget':>6} {'seconds':>8} {'speed':>6} {'KL':>9} {'greedy equal':>12}")
    for length in args.lengths:
        ids = conversation(args.checkpoint, length)
        seconds: dict[int | None, list[float]] = {budget: [] for budget in ways}
        logits: dict[int | None, Tensor] = {}
        for number in range(args.rounds + 1):  # the first is a warm-up
            for budget, cache in ways.items():
                began = clock()
                logits[budget] = prefill(decoder, cache, ids, args.chunk)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if number:
                    seconds[budget].append(clock() - began)
        dense = logits[None]
        for budget in ways:
            median = statistics.median(seconds[budget])
            speed = statistics.median(seconds[None]) / median
            divergence = F.kl_div(
                logits[budget].log_softmax(-1), dense.log_softmax(-1), reduction="batchmean", log_target=True
            ).item()
            equal = (logits[budget].argmax(-1) == dense.argmax(-1)).float().mean().item()
            name = "all" if budget is None else str(budget)
            print(f"{length:>6} {name:>6} {median:>8.2f} {speed:>6.2f} {divergence:>9.5f} {equal:>12.3f}", flush=True)
            results.append(
                {
                    "tokens": length,
                    "budget": budget,
                    "seconds": round(median, 3),
                    "speed_to_dense": round(speed, 3),
                    "kl_nats": divergence,
                    "greedy_equal": equal,
                }
            )
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "device": str(device)}
    settings = {"clock": args.clock, "threads": options.num_threads, "dtype": str(dtype), "rounds": args.rounds}
    print(json.dumps({"benchmark": "sparse_prefill", "machine": machine, **settings, "results": results}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

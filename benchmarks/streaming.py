"""What Triton and the BLS model cost a stream of tokens.

    python benchmarks/streaming.py [--checkpoint DIR] [--rounds 5] [--part engine paced]

engine: tokens per second of eight streams, the engine alone in this process beside the same engine inside Triton, on
the same prompts, in interleaved rounds. paced: a decoder that only keeps time (benchmarks/paced_decoder.py) behind real
Triton and the real BLS, at 1 to 100 streams. Prints tables, then one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from engine import Setting, encode, run_batch
from servers import paced_triton, triton

from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.service import DecoderService
from autoglm_gateway.tracing import Tracing
from autoglm_gateway.triton_backend import TritonBackend
from autoglm_protocol.chat import ChatOptions, ChatRequest, Message, Role, TextPart
from autoglm_protocol.events import Failed, Finished, TokenDelta
from autoglm_protocol.plan import ExitMode
from autoglm_protocol.sampling import SamplingParams

BATCH = 8
STREAMS = (1, 10, 30, 100)
SOURCE = Path(__file__).resolve().parents[1]


def questions(count: int, number: int) -> list[str]:
    """Texts that no earlier round asked, of one length or nearly."""
    return [f"Open app number {number:03d}{row:03d}" for row in range(count)]


async def run_streams(address: str, texts: Sequence[str], max_tokens: int) -> tuple[float, int]:
    """Seconds of a stream for each text, side by side, and the messages that brought their tokens."""
    backend = TritonBackend(address, tracing=Tracing(None))
    messages = 0

    async def one(text: str) -> None:
        nonlocal messages
        request = ChatRequest(
            request_id=f"{text}-{time.monotonic()}",
            model="autoglm-phone-9b",
            messages=(Message(role=Role.USER, parts=(TextPart(text=text),)),),
            sampling=SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True),
            options=ChatOptions(depth="full", exit=ExitMode.FIXED.value),
        )
        async for event in backend.generate(request):
            messages += isinstance(event, TokenDelta)
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Finished) and event.usage.completion_tokens != max_tokens:
                raise RuntimeError(f"a stream ended after {event.usage.completion_tokens} of {max_tokens} tokens")

    began = time.perf_counter()
    await asyncio.gather(*(one(text) for text in texts))
    seconds = time.perf_counter() - began
    await backend.close()
    return seconds, messages


def compare_with_engine(checkpoint: Path, rounds: int, tokens: int, threads: int) -> dict[str, float]:
    service = DecoderService.from_checkpoint(checkpoint, EngineOptions(device="cpu", threads=threads))
    full = Setting(name="full", exit_mode=ExitMode.FIXED, depth=service.config.text.num_layers)
    rates: dict[str, list[float]] = {"alone": [], "through Triton": []}
    with triton(checkpoint, ["--threads", str(threads)]) as server:
        for number in range(rounds + 1):
            texts = questions(BATCH, number)
            prompts = encode(checkpoint, texts, service.context_tokens)
            alone_s = run_batch(service, prompts, full, tokens)[0]
            through_s = asyncio.run(run_streams(server.address, texts, tokens))[0]
            if number:  # the first round warms up
                rates["alone"].append(BATCH * tokens / alone_s)
                rates["through Triton"].append(BATCH * tokens / through_s)
    service.shutdown()
    figures = {name: statistics.median(values) for name, values in rates.items()}
    pairs = zip(rates["through Triton"], rates["alone"], strict=True)
    figures["ratio"] = statistics.median(through / alone for through, alone in pairs)
    print(f"{BATCH} streams of {tokens} tokens, full depth, tokens/s")
    print(f"alone {figures['alone']:.0f}, through Triton and the BLS {figures['through Triton']:.0f}")
    print(f"ratio {figures['ratio']:.3f} (median of {rounds} pairs)")
    return figures


def paced(checkpoint: Path, rounds: int, tokens: int) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    with paced_triton(checkpoint) as server:
        asyncio.run(run_streams(server.address, questions(8, 0), 20))
        print(f"{'streams':>8}{'tokens/s':>10}{'messages/s':>12}{'tokens a message':>18}")
        for streams in STREAMS:
            runs = [asyncio.run(run_streams(server.address, questions(streams, n + 1), tokens)) for n in range(rounds)]
            rate = statistics.median(streams * tokens / seconds for seconds, _ in runs)
            messages = statistics.median(count / seconds for seconds, count in runs)
            print(f"{streams:>8}{rate:>10.0f}{messages:>12.0f}{rate / messages:>18.1f}", flush=True)
            rows.append({"streams": streams, "tokens_per_s": rate, "messages_per_s": messages})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=SOURCE / "checkpoints" / "autoglm-phone-tiny")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--part", nargs="+", choices=("engine", "paced"), default=["engine", "paced"])
    args = parser.parse_args()
    result: dict[str, object] = {"benchmark": "streaming", "cores": os.cpu_count(), "rounds": args.rounds}
    if "engine" in args.part:
        result["engine"] = compare_with_engine(args.checkpoint, args.rounds, args.tokens, args.threads)
    if "paced" in args.part:
        result["paced"] = paced(args.checkpoint, args.rounds, args.tokens)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

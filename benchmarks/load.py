"""Load on an OpenAI endpoint: first-token time, inter-token time, throughput and goodput at a service level.

    python benchmarks/load.py http://127.0.0.1:8000 --rate 5 --requests 200          # open loop: Poisson arrivals
    python benchmarks/load.py http://127.0.0.1:8000 --concurrency 16 --image a.png   # closed loop
    python benchmarks/load.py [--streams 100] [--rounds 5]                           # what the gateway itself costs

With a URL: any server that speaks /v1/chat/completions. Open loop means that a request is sent when its time has come,
however slow the server is, and its times count from then: a server that falls behind cannot hide it. Without a URL:
the comparison of load_compare.py, on servers that it starts. Progress goes to stderr; then a table and one JSON line.
The exit status is 1 where nothing was answered.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from load_compare import add_compare_options, compare
from openai_stream import Answered, OpenAIEndpoint

PROGRESS_S = 1.0


@dataclass(slots=True, kw_only=True)
class Run:
    """What has come back so far."""

    wanted: int
    began_s: float = field(default_factory=time.monotonic)
    in_flight: int = 0
    answers: list[Answered] = field(default_factory=list[Answered])

    async def one(self, endpoint: OpenAIEndpoint, body: dict[str, Any], due_s: float | None = None) -> None:
        self.in_flight += 1
        self.answers.append(await endpoint.ask(body, due_s=due_s))
        self.in_flight -= 1

    async def show_progress(self) -> None:
        """For ever, once a second."""
        seen_tokens = 0
        while True:
            await asyncio.sleep(PROGRESS_S)
            tokens = sum(answer.tokens for answer in self.answers)
            errors = sum(bool(answer.error) for answer in self.answers)
            print(
                f"\r{time.monotonic() - self.began_s:5.0f} s  {len(self.answers)}/{self.wanted} answered  "
                f"{self.in_flight} in flight  {errors} errors  {(tokens - seen_tokens) / PROGRESS_S:,.0f} tokens/s   ",
                end="",
                file=sys.stderr,
                flush=True,
            )
            seen_tokens = tokens


def arrivals_s(rate: float, count: int, seed: int) -> list[float]:
    """When each request is due after the start: a Poisson process of `rate` a second."""
    rng = random.Random(seed)
    at_s, moments_s = 0.0, []
    for _ in range(count):
        at_s += rng.expovariate(rate)
        moments_s.append(at_s)
    return moments_s


async def open_loop(endpoint: OpenAIEndpoint, body: dict[str, Any], run: Run, rate: float, seed: int) -> None:
    tasks: list[asyncio.Task[None]] = []
    for at_s in arrivals_s(rate, run.wanted, seed):
        due_s = run.began_s + at_s
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        tasks.append(asyncio.ensure_future(run.one(endpoint, body, due_s)))
    await asyncio.gather(*tasks)


async def closed_loop(endpoint: OpenAIEndpoint, body: dict[str, Any], run: Run, concurrency: int) -> None:
    turns = iter(range(run.wanted))

    async def caller() -> None:
        for _ in turns:
            await run.one(endpoint, body)

    await asyncio.gather(*(caller() for _ in range(min(concurrency, run.wanted))))


def request_body(args: argparse.Namespace) -> dict[str, Any]:
    content: Any = args.prompt
    if args.image is not None:
        data = base64.b64encode(args.image.read_bytes()).decode()
        suffix = args.image.suffix.lower().lstrip(".").replace("jpg", "jpeg")
        picture = {"type": "image_url", "image_url": {"url": f"data:image/{suffix};base64,{data}"}}
        content = [picture, {"type": "text", "text": args.prompt}]
    body = {"model": args.model, "messages": [{"role": "user", "content": content}], "max_tokens": args.max_tokens}
    body |= {"temperature": args.temperature, "stream": not args.whole, **json.loads(args.extra)}
    return body if args.whole else {**body, "stream_options": {"include_usage": True}}


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile, nan of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def summary(run: Run, seconds: float, *, slo_ttft_s: float, slo_itl_s: float) -> dict[str, Any]:
    good = [answer for answer in run.answers if not answer.error]
    within = [answer for answer in good if answer.ttft_s <= slo_ttft_s and answer.itl_s <= slo_itl_s]
    spread = {
        "ttft": [answer.ttft_s for answer in good],
        "itl": [answer.itl_s for answer in good if answer.gaps_s],
        "gap": [gap_s for answer in good for gap_s in answer.gaps_s],
        "e2e": [answer.e2e_s for answer in good],
    }
    figures: dict[str, Any] = {
        "requests": len(run.answers),
        "errors": dict(Counter(answer.error for answer in run.answers if answer.error)),
        "seconds": round(seconds, 2),
        "requests_per_s": round(len(good) / seconds, 2),
        "tokens_per_s": round(sum(answer.tokens for answer in good) / seconds, 1),
        "goodput_per_s": round(len(within) / seconds, 2),
        "goodput_share": round(len(within) / max(1, len(run.answers)), 4),
        "slo_ms": {"ttft": slo_ttft_s * 1e3, "itl": slo_itl_s * 1e3},
    }
    for name, values in spread.items():
        shares = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
        figures[f"{name}_ms"] = {word: round(1e3 * percentile(values, share), 1) for word, share in shares if values}
    return figures


def print_table(figures: dict[str, Any]) -> None:
    print(f"{figures['requests']} requests in {figures['seconds']} s, errors: {figures['errors'] or 'none'}")
    print(f"{figures['requests_per_s']:>12,.2f} answers/s {figures['tokens_per_s']:>12,.1f} tokens/s")
    level = figures["slo_ms"]
    print(
        f"{figures['goodput_per_s']:>12,.2f} answers/s within {level['ttft']:g} ms to the first token and "
        f"{level['itl']:g} ms a token ({figures['goodput_share']:.1%} of all)"
    )
    print(f"{'[ms]':<28}{'p50':>10}{'p90':>10}{'p99':>10}")
    words = {"ttft": "first token", "itl": "token after the first", "gap": "between two pieces", "e2e": "whole answer"}
    for name, said in words.items():
        values = figures[f"{name}_ms"]
        if values:
            print(f"{said:<28}" + "".join(f"{values[word]:>10,.1f}" for word in ("p50", "p90", "p99")))


async def load(args: argparse.Namespace) -> dict[str, Any]:
    endpoint = OpenAIEndpoint(args.url, api_key=args.api_key)
    body = request_body(args)
    for _ in range(args.warmup):
        first = await endpoint.ask(body)
        if first.error:
            raise SystemExit(f"the server refuses the request: {first.error}")
    run = Run(wanted=args.requests)
    progress = asyncio.ensure_future(run.show_progress())
    try:
        if args.rate is not None:
            await open_loop(endpoint, body, run, args.rate, args.seed)
        else:
            await closed_loop(endpoint, body, run, args.concurrency)
    finally:
        progress.cancel()
        print(file=sys.stderr)
    seconds = time.monotonic() - run.began_s
    await endpoint.close()
    return summary(run, seconds, slo_ttft_s=args.slo_ttft_ms / 1e3, slo_itl_s=args.slo_itl_ms / 1e3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", help="the server, such as http://127.0.0.1:8000; without it: the comparison")
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument("--rate", type=float, help="open loop: requests a second")
    pace.add_argument("--concurrency", type=int, default=16, help="closed loop: callers that each wait for an answer")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--warmup", type=int, default=1, help="requests before the clock starts")
    parser.add_argument("--seed", type=int, default=2026, help="of the arrivals")
    parser.add_argument("--model", default="autoglm-phone-9b")
    parser.add_argument("--api-key")
    parser.add_argument("--prompt", default="Open Bluetooth")
    parser.add_argument("--image", type=Path, help="a PNG, JPEG or WebP file in front of the prompt")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--extra", default="{}", help='more request fields as JSON, such as {"ignore_eos": true}')
    parser.add_argument("--whole", action="store_true", help="do not stream")
    parser.add_argument("--slo-ttft-ms", type=float, default=1000.0, help="service level: time to the first token")
    parser.add_argument("--slo-itl-ms", type=float, default=50.0, help="service level: mean time of a further token")
    add_compare_options(parser)
    args = parser.parse_args()
    if args.url is None:
        print(json.dumps({"benchmark": "load, compared", **compare(args)}))
        return 0
    figures = asyncio.run(load(args))
    print_table(figures)
    pace_said = {"rate": args.rate} if args.rate is not None else {"concurrency": args.concurrency}
    print(json.dumps({"benchmark": "load", "url": args.url, **pace_said, "seed": args.seed, **figures}))
    if figures["requests"] == sum(figures["errors"].values()):
        print("no request was answered", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

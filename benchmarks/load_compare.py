"""What the gateway adds to real Triton: the comparison that load.py runs without a URL. No benchmark by itself.

A decoder that only keeps time (paced_decoder.py) stands behind the real BLS model in a real Triton, so that whatever is
in front of it is what costs. Each round asks the same of three ways in turn: raw tritonclient gRPC, the gateway
streamed, the gateway not streamed; ratios are of the same round, figures are medians over the rounds. At last,
/health/live is asked while large pictures are handled.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import math
import multiprocessing
import os
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import tritonclient.grpc.aio as raw_triton
from openai_stream import Answered, OpenAIEndpoint
from PIL import Image
from servers import Running, gateway, paced_triton

from autoglm_protocol.tensors import AUTOGLM_PHONE, json_tensor

MODEL = "autoglm-phone-9b"
RAW, STREAMED, WHOLE = "raw gRPC", "streamed", "not streamed"
PROBE_EVERY_S = 0.01
LIMIT_MS = 50.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")

Ask = Callable[[int], Awaitable[Answered]]


def add_compare_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("comparison, without a URL")
    checkpoint = Path(__file__).resolve().parents[1] / "checkpoints" / "autoglm-phone-tiny"
    group.add_argument("--checkpoint", type=Path, default=checkpoint, help="its tokenizer and encoders are used")
    group.add_argument("--streams", type=int, default=100, help="callers at once")
    group.add_argument("--turns", type=int, default=3, help="requests of each caller in a round")
    group.add_argument("--rounds", type=int, default=5)
    group.add_argument("--tokens", type=int, default=100, help="of each answer")
    group.add_argument("--spread-s", type=float, default=0.0, help="callers start evenly over so long; 0: all at once")
    group.add_argument("--pictures", type=int, default=20, help="large pictures at once for the look at /health/live")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    tokens_per_s: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    gateway_cpu_s: float


def compare(args: argparse.Namespace) -> dict[str, Any]:
    with (
        paced_triton(args.checkpoint) as triton,
        gateway("--triton-grpc", triton.address, "--triton-metrics", "") as server,
    ):
        rounds = asyncio.run(_rounds(args, triton.address, server))
        figures: dict[str, Any] = {"cores": os.cpu_count()}
        figures |= {name: getattr(args, name) for name in ("streams", "tokens", "spread_s")}
        figures |= _summary(rounds)
        _print_table(figures)
        figures["health"] = probe_health(server, args.pictures)
    health = figures["health"]
    print(
        f"/health/live: {health['idle_max_ms']} ms at most when idle; while {args.pictures} pictures of "
        f"{health['picture_mb']} MB are handled p50 {health['p50_ms']} ms, p99 {health['p99_ms']} ms, "
        f"at most {health['max_ms']} ms ({health['probes']} probes, {health['over_limit']} over {LIMIT_MS:g} ms)"
    )
    return figures


async def _rounds(args: argparse.Namespace, triton: str, server: Running) -> list[dict[str, Measured]]:
    endpoint = OpenAIEndpoint(server.address)
    client = raw_triton.InferenceServerClient(triton)
    asks: dict[str, Ask] = {
        RAW: lambda number: ask_raw(client, number, args.tokens),
        STREAMED: lambda number: endpoint.ask(_body(number, args.tokens, stream=True)),
        WHOLE: lambda number: endpoint.ask(_body(number, args.tokens, stream=False)),
    }
    names = list(asks)
    for name in names:  # warm-up: connections, and what is set up lazily
        await _round(asks[name], args.streams, 1, args.spread_s, server)
    rounds: list[dict[str, Measured]] = []
    for number in range(args.rounds):
        turn = number % len(names)
        rounds.append(
            {
                name: await _round(asks[name], args.streams, args.turns, args.spread_s, server)
                for name in (*names[turn:], *names[:turn])
            }
        )
    await client.close()
    await endpoint.close()
    return rounds


async def _round(ask: Ask, streams: int, turns: int, spread_s: float, server: Running) -> Measured:
    answers: list[Answered] = []

    async def caller(number: int) -> None:
        await asyncio.sleep(spread_s * number / streams)
        for _ in range(turns):
            answers.append(await ask(number))

    cpu_s, began_s = _cpu_s(server.pid), time.monotonic()
    await asyncio.gather(*(caller(number) for number in range(streams)))
    seconds = time.monotonic() - began_s
    errors = {answer.error for answer in answers if answer.error}
    if errors:
        raise RuntimeError(f"requests failed: {errors}")
    ttft_ms = sorted(1e3 * answer.ttft_s for answer in answers)
    return Measured(
        tokens_per_s=sum(answer.tokens for answer in answers) / seconds,
        ttft_p50_ms=statistics.median(ttft_ms),
        ttft_p99_ms=ttft_ms[math.ceil(0.99 * len(ttft_ms)) - 1],
        gateway_cpu_s=_cpu_s(server.pid) - cpu_s,
    )


def _messages(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Open app number {number}"}]


def _body(number: int, tokens: int, *, stream: bool) -> dict[str, Any]:
    body = {"model": MODEL, "messages": _messages(number), "temperature": 0, "max_tokens": tokens}
    body |= {"ignore_eos": True, "depth": "full", "exit": "fixed", "stream": stream}
    return {**body, "stream_options": {"include_usage": True}} if stream else body


async def ask_raw(client: raw_triton.InferenceServerClient, number: int, tokens: int) -> Answered:
    """The same request as tensors on a gRPC stream of its own."""
    due_s = time.monotonic()
    sampling = {"temperature": 0.0, "max_tokens": tokens, "ignore_eos": True}
    tensors = {"messages": _messages(number), "sampling": sampling, "options": {"depth": "full", "exit": "fixed"}}
    inputs: list[Any] = []
    for name, value in tensors.items():
        item = raw_triton.InferInput(name, [1], "BYTES")
        item.set_data_from_numpy(json_tensor(value))
        inputs.append(item)

    async def requests() -> Any:
        yield {
            "model_name": AUTOGLM_PHONE.model,
            "inputs": inputs,
            "request_id": uuid.uuid4().hex,
            "enable_empty_final_response": True,
        }

    moments_s: list[float] = []
    count = 0
    async for result, error in client.stream_infer(requests()):
        if error is not None:
            return Answered(due_s=due_s, error=str(error))
        response = result.get_response()
        if response.outputs:
            new = len(result.as_numpy("token_ids"))
            if new:
                count += new
                moments_s.append(time.monotonic())
        if response.parameters["triton_final_response"].bool_param:
            break
    return Answered(due_s=due_s, ttft_s=moments_s[0] - due_s, e2e_s=moments_s[-1] - due_s, tokens=count)


def _summary(rounds: list[dict[str, Measured]]) -> dict[str, Any]:
    def median(of: Callable[[dict[str, Measured]], float]) -> float:
        return round(statistics.median(map(of, rounds)), 3)

    ways = {
        name: {
            "tokens_per_s": median(lambda one, name=name: one[name].tokens_per_s),
            "ttft_p50_ms": median(lambda one, name=name: one[name].ttft_p50_ms),
            "ttft_p99_ms": median(lambda one, name=name: one[name].ttft_p99_ms),
            "gateway_cpu_s": median(lambda one, name=name: one[name].gateway_cpu_s),
        }
        for name in (RAW, STREAMED, WHOLE)
    }
    return {
        "rounds": len(rounds),
        "ways": ways,
        "streamed_to_raw": median(lambda one: one[STREAMED].tokens_per_s / one[RAW].tokens_per_s),
        "streamed_to_whole": median(lambda one: one[STREAMED].tokens_per_s / one[WHOLE].tokens_per_s),
        "added_ttft_p50_ms": median(lambda one: one[STREAMED].ttft_p50_ms - one[RAW].ttft_p50_ms),
        "added_ttft_p99_ms": median(lambda one: one[STREAMED].ttft_p99_ms - one[RAW].ttft_p99_ms),
    }


def _print_table(figures: dict[str, Any]) -> None:
    print(f"{figures['streams']} callers, {figures['tokens']} tokens an answer, medians of {figures['rounds']} rounds")
    print(f"{'':<14}{'tokens/s':>10}{'TTFT p50':>12}{'TTFT p99':>12}{'gateway CPU':>13}")
    for name, way in figures["ways"].items():
        ttft = f"{way['ttft_p50_ms']:>9.1f} ms{way['ttft_p99_ms']:>9.1f} ms"
        print(f"{name:<14}{way['tokens_per_s']:>10,.0f}{ttft}{way['gateway_cpu_s']:>11.2f} s")
    print(f"streamed to raw {figures['streamed_to_raw']:.3f}, to not streamed {figures['streamed_to_whole']:.3f}")
    print(f"first token later by {figures['added_ttft_p50_ms']:.1f} ms p50, {figures['added_ttft_p99_ms']:.1f} ms p99")


def probe_health(server: Running, pictures: int) -> dict[str, Any]:
    """Asked from a process of its own, so that what it waits for is the gateway and not this client."""
    picture = large_picture()
    with _probing(server.address) as idle:
        time.sleep(1.0)
    data_url = "data:image/jpeg;base64," + base64.b64encode(picture).decode()
    content = [{"type": "image_url", "image_url": {"url": data_url}}, {"type": "text", "text": "Open Bluetooth"}]
    request = {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 8, "ignore_eos": True}
    data = json.dumps(request).encode()
    with _probing(server.address) as busy, ThreadPoolExecutor(pictures) as pool:
        url = f"{server.address}/v1/chat/completions"
        statuses = list(pool.map(lambda _: httpx.post(url, content=data, timeout=300).status_code, range(pictures)))
    if set(statuses) != {200}:
        raise RuntimeError(f"pictures were answered with {statuses}")
    took_ms = sorted(busy)
    return {
        "picture_mb": round(len(picture) / 1e6, 1),
        "probes": len(took_ms),
        "idle_max_ms": round(max(idle), 1),
        "p50_ms": round(statistics.median(took_ms), 1),
        "p99_ms": round(took_ms[math.ceil(0.99 * len(took_ms)) - 1], 1),
        "max_ms": round(took_ms[-1], 1),
        "over_limit": sum(one > LIMIT_MS for one in took_ms),
    }


def large_picture() -> bytes:
    """A JPEG of 12 million pixels that does not compress well."""
    noise = Image.effect_noise((4000, 3000), 60).convert("RGB")
    file = io.BytesIO()
    noise.save(file, "JPEG", quality=80)
    return file.getvalue()


@contextlib.contextmanager
def _probing(url: str) -> Iterator[list[float]]:
    """Milliseconds of each look at /health/live during the block, there once it is over."""
    spawn = multiprocessing.get_context("spawn")
    going, stop, answers = spawn.Event(), spawn.Event(), spawn.SimpleQueue()
    process = spawn.Process(target=_probe, args=(url, going, stop, answers))
    process.start()
    took_ms: list[float] = []
    going.wait()
    try:
        yield took_ms
    finally:
        stop.set()
        took_ms += answers.get()
        process.join()


def _probe(url: str, going: Event, stop: Event, answers: Any) -> None:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=60)
    took_ms: list[float] = []
    going.set()
    while not stop.wait(PROBE_EVERY_S):
        began_s = time.monotonic()
        connection.request("GET", "/health/live")
        connection.getresponse().read()
        took_ms.append(1e3 * (time.monotonic() - began_s))
    answers.put(took_ms)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

"""A recorded trace of the autoscaler's signal: requests in flight at a real gateway, a sample every SAMPLE_EVERY_S.

`python -m tests.cluster.traffic` records it anew: chats arrive by chance, at rates that rise to a rush and fall to
nothing, at a gateway whose backend only keeps time; what is written is what the gateway's own gauges said.
"""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import httpx

FILE = Path(__file__).with_name("traffic.json")
SAMPLE_EVERY_S = 2.0
_GAUGES = ("vllm:num_requests_running{", "vllm:num_requests_waiting{")
# chats a second, each rate for _PHASE_S
_RATES = (0.2, 1.0, 5.0, 6.0, 2.0, 0.5, 0.0)
_PHASE_S = 12.0
_TOKENS_PER_S = 25


def recorded() -> list[int]:
    return json.loads(FILE.read_text())


async def _record(url: str) -> list[int]:
    rng = random.Random(8)
    samples: list[int] = []
    async with httpx.AsyncClient(base_url=url, timeout=60.0) as client:
        asking = asyncio.ensure_future(_ask(client, rng))
        for _ in range(int(len(_RATES) * _PHASE_S / SAMPLE_EVERY_S)):
            page = (await client.get("/metrics")).text
            samples.append(sum(int(float(line.split()[-1])) for line in page.splitlines() if line.startswith(_GAUGES)))
            await asyncio.sleep(SAMPLE_EVERY_S)
        await asking
    return samples


async def _ask(client: httpx.AsyncClient, rng: random.Random) -> None:
    chats: list[asyncio.Task[httpx.Response]] = []
    for rate in _RATES:
        left_s = _PHASE_S
        while rate and (wait_s := rng.expovariate(rate)) < left_s:
            left_s -= wait_s
            await asyncio.sleep(wait_s)
            body = {"model": "autoglm-phone-9b", "max_tokens": rng.randint(20, 160), "messages": [_QUESTION]}
            chat = client.post("/v1/chat/completions", json=body, headers={"cache-control": "no-store"})
            chats.append(asyncio.create_task(chat))
        await asyncio.sleep(left_s)
    for response in await asyncio.gather(*chats):
        response.raise_for_status()


_QUESTION = {"role": "user", "content": "Open WeChat"}


def main() -> None:
    from benchmarks.servers import gateway

    text = "tap " * 400
    with gateway("--fake", f"--fake-tokens-per-s={_TOKENS_PER_S}", f"--fake-text={text}") as server:
        samples = asyncio.run(_record(server.address))
    FILE.write_text(json.dumps(samples) + "\n")
    print(samples)


if __name__ == "__main__":
    main()

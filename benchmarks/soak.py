"""Memory and descriptors of the whole server under lasting load with pictures: both must stay flat.

    python benchmarks/soak.py [--minutes 10] [--callers 4] [--limit 0.05] [--fill 2000]

Starts `autoglm serve`, fills its cache of embeddings with pictures, sends all callers' largest pictures at once (what
Triton's models share never shrinks: this is its highest mark), and then asks for as long as told: screenshots that are
new each time (no cache helps), streamed and whole answers, refused pictures, callers that leave. Each process
of the server is looked at every few seconds; after the first third, which warms up, the mean of the first and of the
last quarter are compared. Prints a table, then one JSON line; the exit status is 1 when a process grew by more than the
limit, or when a request ended otherwise than meant.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import random
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai_stream import OpenAIEndpoint
from PIL import Image
from servers import served

MODEL = "autoglm-phone-9b"
MEANT = {"answered", "left", "image_parse_error"}
LOOK_EVERY_S = 5.0
WARM_UP = 1 / 3
LEAVES_AFTER_S = 0.2
SIZES = ((360, 800), (540, 1200), (720, 1280), (300, 300))
LARGEST = (max(SIZES),)
MEETINGS = 20
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_SLACK_FILES = 2
"""Connections that happen to be open at one look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    rss_mb: float
    files: int


def processes(root: int) -> dict[int, str]:
    """The server's processes by number, with what each one is."""
    found: dict[int, str] = {}
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            children = [part for task in Path(f"/proc/{pid}/task").iterdir() for part in _children(task)]
        except (FileNotFoundError, ProcessLookupError):
            continue
        waiting += children
        if command[0]:  # else it has just ended
            found[pid] = _role(command)
    return found


def _children(task: Path) -> list[int]:
    return [int(word) for word in (task / "children").read_text().split()]


def _role(command: list[str]) -> str:
    if "autoglm_gateway" in command:
        return "gateway"
    if any(word.endswith("/model.py") for word in command):
        return next(Path(word).parts[-3] for word in command if word.endswith("/model.py"))
    return "launcher" if "autoglm_backend.launcher" in command else Path(command[0]).name


def look(pid: int) -> Look | None:
    """None when the process is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return Look(rss_mb=pages * _PAGE_BYTES / 1e6, files=len(os.listdir(f"/proc/{pid}/fd")))
    except (FileNotFoundError, ProcessLookupError):
        return None


def bodies(seed: int) -> Iterator[dict[str, Any]]:
    """Endless requests, most of them with a picture that nobody has sent before."""
    rng = random.Random(seed)
    while True:
        kind = rng.random()
        content: Any = f"Open app number {rng.randrange(10**9)}"
        if kind < 0.75:
            content = [_picture(rng), {"type": "text", "text": content}]
        elif kind < 0.85:
            content = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,bm8="}}]
        body = {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 24}
        yield {**body, "stream": rng.random() < 0.5}


def _picture(rng: random.Random, sizes: Sequence[tuple[int, int]] = SIZES) -> dict[str, Any]:
    width, height = rng.choice(sizes)
    image = Image.new("RGB", (width, height), (rng.randrange(256), rng.randrange(256), rng.randrange(256)))
    image.paste(Image.frombytes("RGB", (64, 64), rng.randbytes(64 * 64 * 3)), (rng.randrange(200), rng.randrange(200)))
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": url}}


async def fill_caches(endpoint: OpenAIEndpoint, count: int, callers: int) -> None:
    """So many pictures, embedded and hardly answered: a cache that is still filling looks like a leak."""
    rng = random.Random(-1)
    left = iter(range(count))

    async def caller() -> None:
        for number in left:
            body = {"model": MODEL, "messages": [{"role": "user", "content": [_picture(rng)]}], "max_tokens": 1}
            answered = await endpoint.ask(body)
            if answered.error:
                raise RuntimeError(f"the server failed on a picture: {answered.error}")
            if number % 100 == 0:
                print(f"{number} of {count} pictures to fill the caches", file=sys.stderr, flush=True)

    await asyncio.gather(*(caller() for _ in range(callers)))


async def meet(endpoint: OpenAIEndpoint, rounds: int, callers: int) -> None:
    """As many of the largest pictures at once as there will ever be, several times."""
    rng = random.Random(-2)
    for _ in range(rounds):
        pictures = [_picture(rng, LARGEST) for _ in range(callers)]
        bodies = ({"model": MODEL, "messages": [{"role": "user", "content": [each]}]} for each in pictures)
        asked = (endpoint.ask({**body, "max_tokens": 24}) for body in bodies)
        for answered in await asyncio.gather(*asked):
            if answered.error:
                raise RuntimeError(f"the server failed on a picture: {answered.error}")


async def soak(url: str, pid: int, args: argparse.Namespace) -> tuple[dict[str, list[Look]], Counter[str]]:
    endpoint = OpenAIEndpoint(url)
    await fill_caches(endpoint, args.fill, args.callers)
    await meet(endpoint, MEETINGS, args.callers)
    until_s = time.monotonic() + 60 * args.minutes
    outcomes: Counter[str] = Counter()
    looks: dict[str, list[Look]] = defaultdict(list)

    async def caller(number: int) -> None:
        for turn, body in enumerate(bodies(number)):
            if time.monotonic() > until_s:
                return
            asked = endpoint.ask(body)
            if turn % 10 == 9:
                try:
                    await asyncio.wait_for(asked, LEAVES_AFTER_S)
                except asyncio.TimeoutError:
                    outcomes["left"] += 1
                continue
            answered = await asked
            outcomes[answered.error or "answered"] += 1

    async def observe() -> None:
        while True:
            for one, role in processes(pid).items():
                seen = look(one)
                if seen is not None:
                    looks[role].append(seen)
            rss = ", ".join(f"{role} {seen[-1].rss_mb:.0f}" for role, seen in looks.items())
            left_s = until_s - time.monotonic()
            print(f"{left_s:6.0f} s left, {outcomes.total()} requests, MB: {rss}", file=sys.stderr, flush=True)
            await asyncio.sleep(LOOK_EVERY_S)

    observer = asyncio.ensure_future(observe())
    await asyncio.gather(*(caller(number) for number in range(args.callers)))
    observer.cancel()
    await endpoint.close()
    return looks, outcomes


def report(looks: dict[str, list[Look]], limit: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    print(f"{'':<16}{'MB before':>12}{'MB after':>12}{'growth':>9}{'files before':>14}{'files after':>13}")
    for role, all_seen in looks.items():
        seen = all_seen[int(WARM_UP * len(all_seen)) :]
        quarter = max(1, len(seen) // 4)
        before, after = seen[:quarter], seen[-quarter:]
        rss = [statistics.mean(one.rss_mb for one in part) for part in (before, after)]
        files = [statistics.median(one.files for one in part) for part in (before, after)]
        growth = rss[1] / rss[0] - 1
        is_flat = growth <= limit and files[1] <= files[0] * (1 + limit) + _SLACK_FILES
        print(f"{role:<16}{rss[0]:>12.1f}{rss[1]:>12.1f}{growth:>9.1%}{files[0]:>14.0f}{files[1]:>13.0f}")
        rows.append({"process": role, "rss_mb": rss, "growth": round(growth, 4), "files": files, "is_flat": is_flat})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    checkpoint = Path(__file__).resolve().parents[1] / "checkpoints" / "autoglm-phone-tiny"
    parser.add_argument("--checkpoint", type=Path, default=checkpoint)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--fill", type=int, default=2000, help="pictures before the clock starts")
    parser.add_argument("--limit", type=float, default=0.05, help="growth that is still flat, as a share")
    args = parser.parse_args()
    with served(args.checkpoint, ("--device", "cpu", "--threads", "1")) as server:
        looks, outcomes = asyncio.run(soak(server.address, server.pid, args))
    rows = report(looks, args.limit)
    print(f"requests: {dict(outcomes)}")
    is_flat = all(row["is_flat"] for row in rows) and outcomes.keys() <= MEANT
    print(json.dumps({"benchmark": "soak", "minutes": args.minutes, "outcomes": outcomes, "processes": rows}))
    return 0 if is_flat else 1


if __name__ == "__main__":
    raise SystemExit(main())

"""Loads a server of this checkout, has a real Prometheus watch it, and draws the dashboard of that time.

python deploy/dashboards/record.py -o docs/dashboard.png     (scripts/get_promtool.sh brings Prometheus)
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # for benchmarks, which is no installed package

from benchmarks.openai_stream import OpenAIEndpoint  # noqa: E402
from benchmarks.traffic import mixed_traffic  # noqa: E402

HTTP, GRPC, TRITON_GRPC, TRITON_METRICS, PROMETHEUS = range(18741, 18746)
RELEASE = {"namespace": "ai", "app_kubernetes_io_instance": "phone"}
# callers at once, one share of the time each: a rise, a rush, a lull, a second wave
CALLERS = (1, 2, 4, 6, 6, 3, 1, 4)
# what two cores answer while pictures are new; then they come again, out of the cache, and the encoders rest
QUESTIONS_PER_MIN = 300
START_TIMEOUT_S = 180.0
PROGRAM = ROOT / ".cache/prometheus/prometheus"


@contextlib.contextmanager
def running(command: list[str], ready_url: str) -> Iterator[None]:
    """A program, once that address answers 200."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not _answers(ready_url):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"{command[0]} does not answer at {ready_url}")
            time.sleep(0.5)
        yield
    finally:
        process.terminate()
        process.wait()


def server() -> list[str]:
    ports = {"port": HTTP, "grpc-port": GRPC, "triton-grpc-port": TRITON_GRPC, "triton-metrics-port": TRITON_METRICS}
    flags = [f"--{name}={port}" for name, port in ports.items()]
    return [sys.executable, "-m", "autoglm_backend.launcher", "--device=cpu", *flags]


def prometheus(folder: Path) -> list[str]:
    def target(port: int, pod: str) -> dict[str, Any]:
        return {"targets": [f"127.0.0.1:{port}"], "labels": {**RELEASE, "pod": pod}}

    targets = [target(HTTP, "phone-autoglm-phone-gateway-0"), target(TRITON_METRICS, "phone-autoglm-phone-triton-0")]
    scrapes = [{"job_name": "autoglm", "static_configs": targets}]
    config = {"global": {"scrape_interval": "5s"}, "scrape_configs": scrapes}
    (folder / "prometheus.yaml").write_text(json.dumps(config))
    return [
        str(PROGRAM),
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{PROMETHEUS}",
        "--log.level=warn",
    ]


async def load(bodies: list[dict[str, Any]], seconds: float) -> Counter[str]:
    """How often which error came, "" for a whole answer."""
    outcomes: Counter[str] = Counter()
    endless = itertools.cycle(bodies)
    endpoint = OpenAIEndpoint(f"http://127.0.0.1:{HTTP}")

    async def caller(until_s: float) -> None:
        while time.monotonic() < until_s:
            outcomes[(await endpoint.ask(next(endless))).error] += 1

    for callers in CALLERS:
        until_s = time.monotonic() + seconds / len(CALLERS)
        await asyncio.gather(*(caller(until_s) for _ in range(callers)))
    await endpoint.close()
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0, help="of load (default: %(default)s)")
    parser.add_argument("-o", "--output", required=True, metavar="PNG")
    options = parser.parse_args()
    if not PROGRAM.exists():
        parser.error(f"no Prometheus at {PROGRAM.relative_to(ROOT)}: run scripts/get_promtool.sh")
    length = {"stream": True, "stream_options": {"include_usage": True}, "temperature": 0, "max_tokens": 128}
    bodies = [
        {"model": "autoglm-phone-9b", "messages": [{"role": "user", "content": question.openai_content}], **length}
        for question in mixed_traffic(math.ceil(QUESTIONS_PER_MIN * options.minutes), seed=8)
    ]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(running(server(), f"http://127.0.0.1:{HTTP}/health/ready"))
        stack.enter_context(running(prometheus(folder), f"http://127.0.0.1:{PROMETHEUS}/-/ready"))
        print(asyncio.run(load(bodies, 60 * options.minutes)))
        release = ",".join(f'{name}="{value}"' for name, value in RELEASE.items())
        drawing = [sys.executable, str(Path(__file__).with_name("render.py")), "serving", f"--release={release}"]
        drawing += [f"--prometheus=http://127.0.0.1:{PROMETHEUS}", f"--minutes={options.minutes}", "-o", options.output]
        subprocess.run(drawing, check=True)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


if __name__ == "__main__":
    main()

"""The acceptance list of 40 checks: every number stands in the docstring of the tests that show it.

Here are the checks that no other file is about, and the inventory.
"""

from __future__ import annotations

import ast
import os
import re
import threading
from pathlib import Path

import httpx
import pytest
from tests.gateway.processes import MODEL, Gateway, running_gateway
from tests.gateway.test_media_fetch import image_url, media_host
from tests.gateway.wire import chat_body, post, refusal

TESTS = Path(__file__).parents[1]


def test_every_check_has_a_test() -> None:
    shown: set[int] = set()
    for path in TESTS.glob("*/test_*.py"):
        if path.parent.name not in ("gateway", "stack"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                shown |= {int(number) for number in re.findall(r"[Cc]heck (\d+)", ast.get_docstring(node) or "")}
    assert shown == set(range(1, 41))


def test_stream_options_need_a_stream(gateway: Gateway) -> None:
    """Check 6."""
    error = refusal(post(gateway, chat_body(stream_options={"include_usage": True})), 400)
    assert error["param"] == "stream_options"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/nothing", 404),
        ("GET", "/v1/models/gpt-4", 404),
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/models", 405),
        ("PUT", "/tokenize", 405),
        ("POST", "/v1/chat/completions", 400),
        ("POST", "/v1/audio/transcriptions", 400),
        ("POST", "/v1/responses", 400),
    ],
)
def test_every_refusal_has_openais_shape(gateway: Gateway, method: str, path: str, status: int) -> None:
    """Check 10."""
    refusal(httpx.request(method, f"http://{gateway.http}{path}", content=b"{"), status)


def test_a_host_that_never_answers_holds_nobody_else_up() -> None:
    """Check 17."""
    with running_gateway("--fake", "--media-private-addresses", "--media-timeout-s", "20") as gateway:
        with media_host() as host:
            waiting = threading.Thread(target=post, args=(gateway, chat_body([image_url(host + "/never")])))
            waiting.start()
            gateway.wait_for_metric("vllm:num_requests_waiting", 1, timeout_s=5)
            assert [post(gateway, chat_body()).status_code for _ in range(20)] == [200] * 20
            assert gateway.metric("vllm:num_requests_waiting") == 1
        waiting.join()


def test_a_body_of_just_the_limit_passes() -> None:
    """Check 34."""
    with running_gateway("--fake", "--max-body-bytes", "1000") as gateway:
        body = f'{{"model": "{MODEL}", "messages": [{{"role": "user", "content": "Hi"}}], "max_tokens": 1}}'
        url, exact = f"{gateway.v1}/chat/completions", body.ljust(1000)
        assert httpx.post(url, content=exact).status_code == 200
        refusal(httpx.post(url, content=exact + " "), 413)
        assert httpx.post(url, content=(part.encode() for part in (exact[:500], exact[500:]))).status_code == 200
        refusal(httpx.post(url, content=(part.encode() for part in (exact, " "))), 413)


def test_a_page_of_metrics_is_cheap(gateway: Gateway) -> None:
    """Check 37."""
    stat = Path(f"/proc/{gateway.process.pid}/stat")
    with httpx.Client() as client:
        client.get(f"http://{gateway.http}/metrics")
        before = _cpu_ticks(stat)
        for _ in range(100):
            client.get(f"http://{gateway.http}/metrics")
        spent = _cpu_ticks(stat) - before
    # One is 0.5 ms on a quiet machine, 1 % of a core at a scrape every 50 ms; a busy one counts coarsely.
    assert spent * 1e3 / os.sysconf("SC_CLK_TCK") / 100 < 2


def _cpu_ticks(stat: Path) -> int:
    fields = stat.read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])

"""`autoglm profile` against the real server."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.e2e.stack import Stack
from tests.e2e.test_chat_http import ask, refused

from autoglm_client.profile_command import main

pytestmark = pytest.mark.triton


def test_a_profile_is_a_chrome_trace_and_a_table_of_what_cost_most(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    target = tmp_path / "trace.json"
    with ThreadPoolExecutor(1) as threads:
        profiling = threads.submit(main, ["--steps", "3", "-o", str(target), "--base-url", stack.http])
        while not profiling.done():
            ask(stack, "Go back")

    assert profiling.result() == 0
    trace = json.loads(target.read_text(encoding="utf-8"))
    assert trace["autoglm"]["steps"] == 3
    assert any(event.get("name") == "layers" for event in trace["traceEvents"])
    assert "3 steps in" in capsys.readouterr().out


def test_nothing_to_profile_is_said_and_leaves_no_file(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    target = tmp_path / "trace.json"

    assert main(["--seconds", "0.05", "-o", str(target), "--base-url", stack.http]) == 1
    assert "no step ran" in capsys.readouterr().err
    assert not target.exists()


def test_a_second_profile_meanwhile_is_a_conflict(stack: Stack):
    url = f"{stack.http}/admin/profile"
    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(httpx.post, url, json={"seconds": 0.5}, timeout=60) for _ in range(2)]
        statuses = sorted(future.result().status_code for future in both)

    assert statuses == [200, 409]


def test_serving_goes_on_after_profiles(stack: Stack):
    before = ask(stack, "Go back")["choices"]
    httpx.post(f"{stack.http}/admin/profile", json={"seconds": 0.05}, timeout=60)

    assert ask(stack, "Go back")["choices"] == before
    assert refused(stack, {"model": "autoglm-phone-9b"})[0] == 400

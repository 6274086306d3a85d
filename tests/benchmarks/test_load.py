"""The load generators against the fake backend behind the real gateway: what they print, count and exit with."""

from __future__ import annotations

import json
import py_compile
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from benchmarks.phone_requests import phone_requests
from tests.gateway.processes import Gateway, free_port, running_gateway

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """Six tokens after a tenth of a second, fifty tokens a second."""
    settings = ("--fake-ttft-s", "0.1", "--fake-tokens-per-s", "50", "--fake-text", "one two three")
    with running_gateway("--fake", *settings) as gateway:
        yield gateway


def load(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "load.py"), url, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def figures(run: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON line at the end."""
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_a_closed_loop_says_what_it_measured(gateway: Gateway) -> None:
    found = figures(load(f"http://{gateway.http}", "--concurrency", "2", "--requests", "4"))
    assert (found["requests"], found["errors"], found["concurrency"]) == (4, {}, 2)
    assert found["ttft_ms"]["p50"] >= 100
    assert found["itl_ms"]["p50"] >= 20
    assert found["e2e_ms"]["p99"] >= found["ttft_ms"]["p99"] + 5 * 20
    assert found["tokens_per_s"] == pytest.approx(4 * 6 / found["seconds"], rel=0.05)


def test_an_open_loop_sends_at_its_rate(gateway: Gateway) -> None:
    found = figures(load(f"http://{gateway.http}", "--rate", "20", "--requests", "6", "--seed", "1"))
    assert (found["requests"], found["rate"], found["seed"]) == (6, 20.0, 1)


def test_the_table_names_every_time(gateway: Gateway) -> None:
    table = load(f"http://{gateway.http}", "--requests", "2", "--concurrency", "1").stdout
    for words in ("first token", "token after the first", "between two pieces", "whole answer", "answers/s within"):
        assert words in table


@pytest.mark.parametrize(("first_token_ms", "share"), [("5000", 1.0), ("50", 0.0)])
def test_goodput_counts_the_answers_within_the_service_level(
    gateway: Gateway, first_token_ms: str, share: float
) -> None:
    level = ("--slo-ttft-ms", first_token_ms, "--slo-itl-ms", "5000")
    found = figures(load(f"http://{gateway.http}", "--requests", "2", *level))
    assert found["goodput_share"] == share
    assert found["slo_ms"]["ttft"] == float(first_token_ms)


def test_progress_is_shown_while_it_runs(gateway: Gateway) -> None:
    run = load(f"http://{gateway.http}", "--requests", "12", "--concurrency", "1")
    assert "/12 answered  1 in flight  0 errors" in run.stderr


def test_a_whole_answer_has_one_time(gateway: Gateway) -> None:
    found = figures(load(f"http://{gateway.http}", "--requests", "2", "--whole"))
    assert found["ttft_ms"] == found["e2e_ms"]
    assert found["itl_ms"] == {}


def test_a_failed_answer_counts_as_an_error_and_not_as_goodput() -> None:
    with running_gateway("--fake", "--fake-fail-at-token", "2") as gateway:
        run = load(f"http://{gateway.http}", "--requests", "3", "--warmup", "0")
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["errors"] == {"internal_error": 3}
    assert (found["goodput_per_s"], found["tokens_per_s"]) == (0, 0)


def test_nothing_answered_is_a_failure_of_the_run() -> None:
    run = load(f"http://127.0.0.1:{free_port()}", "--requests", "2", "--warmup", "0")
    assert run.returncode == 1
    assert json.loads(run.stdout.splitlines()[-1])["errors"] == {"ConnectionRefusedError": 2}
    assert "no request was answered" in run.stderr


def test_a_request_that_the_server_refuses_ends_the_run_at_once(gateway: Gateway) -> None:
    run = load(f"http://{gateway.http}", "--extra", '{"temperature": 9}')
    assert run.returncode == 1
    assert "the server refuses the request: invalid_value" in run.stderr


def test_the_locustfile_compiles(tmp_path: Path) -> None:
    py_compile.compile(str(BENCHMARKS / "locustfile.py"), cfile=str(tmp_path / "locustfile.pyc"), doraise=True)


@pytest.mark.parametrize("name", ["screenshot", "text"])
def test_what_locust_users_send_is_answered(gateway: Gateway, name: str) -> None:
    with httpx.stream("POST", f"{gateway.v1}/chat/completions", json=phone_requests()[name], timeout=30) as response:
        lines = [line for line in response.iter_lines() if line]
    assert response.status_code == 200
    assert lines[-1] == "data: [DONE]"

"""A request's and the process's life: health, ids, overload, callers that leave, the drain."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from tests.gateway.processes import Gateway, running_gateway
from tests.gateway.wire import chat_body, image_part, post, refusal, stream_lines

RUNNING, WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
CANCELLED = "autoglm_gateway_requests_cancelled_total"
NEVER = ("--fake", "--fake-ttft-s", "3600", "--drain-s", "0.1")


@contextmanager
def open_stream(gateway: Gateway) -> Iterator[httpx.Response]:
    url = f"{gateway.v1}/chat/completions"
    with httpx.stream("POST", url, json=chat_body(stream=True), timeout=30) as response:
        yield response


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
def test_health_is_good(gateway: Gateway, path: str):
    """Check 35."""
    assert httpx.get(f"http://{gateway.http}{path}").status_code == 200


def test_ready_is_503_while_the_backend_is_not():
    """Check 35."""
    with running_gateway("--fake", "--no-fake-ready") as gateway:
        refusal(httpx.get(f"http://{gateway.http}/health/ready"), 503)
        assert httpx.get(f"http://{gateway.http}/health/live").status_code == 200
        refusal(post(gateway, chat_body()), 503)


def test_a_valid_request_id_is_echoed_and_an_invalid_one_replaced(gateway: Gateway):
    """Check 32."""
    good = post(gateway, chat_body(), headers={"x-request-id": "abc-1.2"})
    bad = post(gateway, chat_body(), headers={"x-request-id": "a b"})

    assert good.headers["x-request-id"] == "abc-1.2"
    assert len(bad.headers["x-request-id"]) == 32


def test_the_log_has_the_request_id_and_never_the_prompt(gateway: Gateway):
    """Check 32."""
    post(gateway, chat_body("a secret prompt"), headers={"x-request-id": "log-me"})

    gateway.wait_for_log(request_id="log-me", status=200)
    assert "secret" not in json.dumps(gateway.log)


def test_32_streams_finish_and_the_gauges_return_to_zero(gateway: Gateway):
    """Check 37."""
    answers: list[list[str]] = []
    threads = [threading.Thread(target=lambda: answers.append(stream_lines(gateway, chat_body()))) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [lines[-1] for lines in answers] == ["[DONE]"] * 32
    assert gateway.metric(RUNNING) == gateway.metric(WAITING) == 0


def test_metrics_count_requests_tokens_and_latencies():
    """Check 37."""
    with running_gateway("--fake") as gateway:
        tokens = post(gateway, chat_body(max_tokens=7)).json()["usage"]["completion_tokens"]

        assert gateway.metric("vllm:generation_tokens_total") == tokens == 7
        assert gateway.metric('vllm:request_success_total{finished_reason="length"') == 1
        assert gateway.metric("vllm:time_to_first_token_seconds_count") == 1
        assert gateway.metric("vllm:inter_token_latency_seconds_count") == 6
        assert gateway.metric("vllm:e2e_request_latency_seconds_count") == 1
        assert gateway.metric('http_requests_total{handler="chat_completions",method="POST",status="200"') == 1


def test_a_caller_that_leaves_a_stream_frees_its_place_within_a_second():
    """Check 28."""
    with running_gateway(*NEVER) as gateway:
        with open_stream(gateway):
            gateway.wait_for_metric(RUNNING, 1)
        gateway.wait_for_metric(RUNNING, 0)
        gateway.wait_for_metric(CANCELLED, 1)
        assert gateway.metric("autoglm_gateway_request_failures_total") == 0


def test_a_caller_that_leaves_a_whole_answer_frees_its_place_within_a_second():
    """Check 28."""
    with running_gateway(*NEVER) as gateway:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{gateway.v1}/chat/completions", json=chat_body(), timeout=0.2)
        gateway.wait_for_metric(RUNNING, 0)
        gateway.wait_for_metric(CANCELLED, 1)


def test_a_caller_that_leaves_the_queue_frees_its_place_within_a_second():
    """Check 28."""
    with running_gateway(*NEVER, "--max-running", "1") as gateway, open_stream(gateway):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{gateway.v1}/chat/completions", json=chat_body(), timeout=0.2)
        gateway.wait_for_metric(WAITING, 0)
        gateway.wait_for_metric(CANCELLED, 1)


def test_a_full_queue_answers_429_at_once_and_before_any_media_is_read():
    """Check 30."""
    with running_gateway(*NEVER, "--max-running", "1", "--max-waiting", "0") as gateway, open_stream(gateway):
        gateway.wait_for_metric(RUNNING, 1)
        response = post(gateway, chat_body([image_part(b"no picture at all")], stream=True))

        assert int(response.headers["openai-processing-ms"]) < 50
        assert refusal(response, 429)["code"] == "server_is_overloaded"
        assert int(response.headers["retry-after"]) >= 1


def test_a_request_that_waits_too_long_is_refused():
    arguments = (*NEVER, "--max-running", "1", "--max-wait-s", "0.2")
    with running_gateway(*arguments) as gateway, open_stream(gateway):
        gateway.wait_for_metric(RUNNING, 1)
        assert refusal(post(gateway, chat_body()), 429)["code"] == "server_is_overloaded"


def test_sigterm_lets_a_running_stream_finish_and_takes_no_new_work():
    """Check 36."""
    with running_gateway("--fake", "--fake-tokens-per-s", "40") as gateway:
        with open_stream(gateway) as response:
            lines = response.iter_lines()
            next(lines)
            gateway.process.send_signal(signal.SIGTERM)
            wait_until_not_ready(gateway)
            assert refusal(post(gateway, chat_body()), 503)["code"] == "server_is_shutting_down"
            assert httpx.get(f"http://{gateway.http}/health/live").status_code == 200
            assert list(lines)[-2] == "data: [DONE]"
        assert gateway.process.wait(10) == 0


def test_sigterm_ends_what_takes_too_long_with_an_error_event():
    with running_gateway(*NEVER) as gateway:
        with open_stream(gateway) as response:
            lines = response.iter_lines()
            next(lines)
            gateway.process.send_signal(signal.SIGTERM)
            *_, error, end = (line for line in lines if line)
        assert end == "data: [DONE]"
        assert json.loads(error.removeprefix("data: "))["error"]["code"] == "server_is_shutting_down"
        assert gateway.process.wait(10) == 0


def test_a_taken_port_is_one_clear_sentence(gateway: Gateway):
    with pytest.raises(AssertionError, match=f"cannot listen on {gateway.http}"):  # noqa: SIM117
        with running_gateway("--fake", "--port", gateway.http.rsplit(":", 1)[1]):
            pass


def wait_until_not_ready(gateway: Gateway) -> None:
    deadline_s = time.monotonic() + 2
    while httpx.get(f"http://{gateway.http}/health/ready").status_code != 503:
        assert time.monotonic() < deadline_s

"""The gateway in front of a real Triton that runs a scripted model: the wire between the two."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from tests.gateway.processes import Gateway, Triton, free_port, running_gateway, running_triton
from tests.gateway.wire import (
    chat_body,
    delta_text,
    image_part,
    png,
    post,
    refusal,
    stream_chunks,
    stream_lines,
    text_part,
)

pytestmark = pytest.mark.triton

RUNNING = "vllm:num_requests_running"


def test_text_crosses_unharmed_streamed_and_whole(triton_gateway: Gateway):
    """Check 27."""
    text = "点击😀 a\u0000b\n"

    assert post(triton_gateway, chat_body(f"say {text}")).json()["choices"][0]["message"]["content"] == text
    assert delta_text(stream_chunks(triton_gateway, chat_body(f"say {text}"))) == text


def test_media_cross_as_bytes(triton_gateway: Gateway):
    big = png(640, 640)
    answer = post(triton_gateway, chat_body([image_part(png()), image_part(big), text_part("say ok")])).json()

    assert answer["usage"]["prompt_tokens_details"]["image_tokens"] == len(png()) + len(big)


def test_the_plan_and_the_request_id_come_back_from_triton(triton_gateway: Gateway):
    """Check 32."""
    answer = post(triton_gateway, chat_body("say ok"), headers={"x-request-id": "abc"}).json()

    assert answer["dynamic_graph"]["depth"] == 6
    assert answer["dynamic_graph"]["request_id"].startswith("abc.")


def test_the_callers_trace_reaches_triton(triton_gateway: Gateway):
    """Check 32."""
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    for headers, seen in (({"traceparent": traceparent}, traceparent), ({"traceparent": "nonsense"}, None), ({}, None)):
        answer = post(triton_gateway, chat_body("say ok"), headers=headers).json()
        assert answer["dynamic_graph"].get("traceparent") == seen


def test_a_refusal_of_the_model_keeps_its_status_code_and_field(triton_gateway: Gateway):
    error = refusal(post(triton_gateway, chat_body("refuse", stream=True)), 400)

    assert error["param"] == "depth"
    assert error["message"] == "depth is 7, must be 6 or 12"


def test_a_failure_in_the_middle_becomes_an_error_event(triton_gateway: Gateway):
    lines = stream_lines(triton_gateway, chat_body("fail 3"))

    assert '"message":"the decoder broke"' in lines[-2]


def test_features_come_from_the_models_config(triton_gateway: Gateway):
    httpx.get(f"http://{triton_gateway.http}/health/ready")

    assert post(triton_gateway, chat_body("say ok", logprobs=True)).status_code == 200


@pytest.mark.parametrize("stream", [True, False])
def test_a_caller_that_leaves_cancels_the_model_within_a_second(triton_gateway: Gateway, triton: Triton, stream: bool):
    """Check 28."""

    def cancelled() -> float:
        page = httpx.get(triton.metrics).text
        return sum(float(line.split()[1]) for line in page.splitlines() if line.startswith("autoglm_test_cancelled"))

    before = cancelled()
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{triton_gateway.v1}/chat/completions", json=chat_body("stall", stream=stream), timeout=0.3)
    triton_gateway.wait_for_metric(RUNNING, 0)
    # Triton publishes its metrics every two seconds by default.
    with httpx.Client() as client:
        for _ in range(2000):
            client.get(triton.metrics)
            if cancelled() == before + 1:
                return
    pytest.fail("the model never saw the cancellation")


def test_tritons_own_metrics_stand_on_the_gateways_page(triton_gateway: Gateway, triton: Triton):
    triton_gateway.wait_for_metric("vllm:kv_cache_usage_perc", 0.25, timeout_s=5)

    assert triton_gateway.metric(f'autoglm_kv_usage_ratio{{triton="{triton.metrics[7:].split("/")[0]}"}}') == 0.25


def test_metrics_of_a_names_addresses_count_and_are_not_shown_again(triton: Triton):
    address = triton.metrics.removeprefix("http://").split("/")[0]
    with running_gateway("--triton-grpc", triton.grpc, "--triton-metrics", f"dns:///{address}") as gateway:
        gateway.wait_for_metric("vllm:kv_cache_usage_perc", 0.25, timeout_s=5)

        assert "autoglm_kv_usage_ratio" not in httpx.get(f"http://{gateway.http}/metrics").text


def test_a_triton_that_dies_and_comes_back_needs_no_restart_of_the_gateway(tmp_path: Path):
    """Check 39."""
    ports = {"grpc_port": free_port(), "metrics_port": free_port()}
    with running_gateway("--triton-grpc", f"127.0.0.1:{ports['grpc_port']}") as gateway:
        refusal(httpx.get(f"http://{gateway.http}/health/ready"), 503)
        refusal(post(gateway, chat_body("say ok")), 503)
        with running_triton(tmp_path, **ports) as triton:
            gateway.wait_until_ready(5)
            assert post(gateway, chat_body("say ok")).status_code == 200
            with httpx.stream(
                "POST", f"{gateway.v1}/chat/completions", json=chat_body("stall", stream=True)
            ) as response:
                lines = response.iter_lines()
                next(lines)
                triton.process.kill()
                *_, error, end = (line for line in lines if line)
            assert '"code":"backend_unavailable"' in error
            assert end == "data: [DONE]"
        refusal(post(gateway, chat_body("say ok")), 503)
        with running_triton(tmp_path, **ports):
            gateway.wait_until_ready(5)
            assert post(gateway, chat_body("say ok")).status_code == 200

"""Depth as callers see it: the fields, the layers of each token, the report and the metrics, over HTTP and gRPC."""

from __future__ import annotations

import json
from typing import Any

import grpc
import httpx
import pytest
from prometheus_client import generate_latest
from tests.gateway.processes import Gateway
from tests.gateway.test_grpc import request
from tests.gateway.wire import chat_body, post, refusal

from autoglm_gateway.fake_backend import FakeKnobs
from autoglm_gateway.metrics import Metrics, RequestMetrics
from autoglm_protocol.events import Finished, FinishReason, Usage
from autoglm_protocol.grpc import autoglm_pb2 as pb
from autoglm_protocol.grpc import autoglm_pb2_grpc

TEXT = FakeKnobs().fake_text


def chunks_of(gateway: Gateway, **fields: Any) -> list[dict[str, Any]]:
    with httpx.stream("POST", f"{gateway.v1}/chat/completions", json=chat_body(stream=True, **fields)) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_a_stream_says_the_layers_of_each_token_when_asked(gateway: Gateway):
    first, *rest = chunks_of(gateway, return_token_layers=True)
    tokens = [token for chunk in rest for token in chunk["choices"][0].get("token_layers", ())]

    assert first["dynamic_graph"]["num_layers"] == 24
    assert "".join(token["text"] for token in tokens) == TEXT
    assert {token["layers"] for token in tokens} == {6, 24}


def test_a_whole_answer_says_the_same(gateway: Gateway):
    answer = post(gateway, chat_body(return_token_layers=True, depth=12)).json()
    tokens = answer["choices"][0]["token_layers"]

    assert "".join(token["text"] for token in tokens) == TEXT
    assert answer["dynamic_graph"]["layers_run"] == {"12": len(tokens)}


def test_nobody_who_does_not_ask_gets_them(gateway: Gateway):
    assert not any("token_layers" in chunk["choices"][0] for chunk in chunks_of(gateway))
    assert "token_layers" not in post(gateway, chat_body()).json()["choices"][0]


def test_a_completion_has_them_too(gateway: Gateway):
    body = {"model": "autoglm-phone-9b", "prompt": "Hi", "return_token_layers": True, "max_tokens": 3}
    choice = httpx.post(f"{gateway.v1}/completions", json=body).json()["choices"][0]

    assert "".join(token["text"] for token in choice["token_layers"]) == choice["text"]


def test_grpc_says_the_layers_of_each_token_when_asked(gateway: Gateway):
    with grpc.insecure_channel(gateway.grpc) as channel:
        stub: Any = autoglm_pb2_grpc.AutoGLMStub(channel)
        asked = request(options=pb.Options(return_token_layers=True))
        whole = stub.Chat(asked).choices[0]
        streamed = [token for event in stub.ChatStream(asked) for token in event.delta.token_layers]

    assert "".join(token.text for token in whole.token_layers) == TEXT
    assert list(whole.token_layers) == streamed
    assert len(whole.token_layers) == len(whole.token_ids)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"depth": 7}, "depth"),
        ({"depth": [6]}, "depth"),
        ({"exit": "certified"}, "exit"),
        ({"exit": "lossless", "depth": 6}, "exit"),
        ({"exit": 6}, "exit"),
        ({"return_token_layers": "yes"}, "return_token_layers"),
        ({"attention_window": "512"}, "attention_window"),
        ({"attention_window": 512}, "attention_window"),
    ],
)
def test_what_cannot_be_is_refused_with_its_field(gateway: Gateway, fields: dict[str, Any], param: str):
    assert refusal(post(gateway, chat_body(**fields)), 400)["param"] == param


def finished(**graph: Any) -> Finished:
    report = {"exit_mode": "lossless", "encoders_run": ["vision"], "encoders_skipped": ["speech"], **graph}
    usage = Usage(prompt_tokens=100, cached_tokens=64, completion_tokens=9)
    return Finished(finish_reason=FinishReason.STOP, usage=usage, dynamic_graph=report)


def page_after(*events: Finished) -> str:
    metrics = Metrics("m")
    for event in events:
        RequestMetrics(metrics).observe(event)
    return generate_latest(metrics.registry).decode()


@pytest.mark.parametrize(
    "line",
    [
        'vllm:spec_decode_num_draft_tokens_total{model_name="m"} 7.0',
        'vllm:spec_decode_num_accepted_tokens_total{model_name="m"} 6.0',
        'vllm:prefix_cache_queries_total{model_name="m"} 100.0',
        'vllm:prefix_cache_hits_total{model_name="m"} 64.0',
        'autoglm_gateway_layer_steps_total{model_name="m"} 480.0',
        'autoglm_gateway_tokens_total{layers="6",model_name="m"} 6.0',
        'autoglm_gateway_tokens_total{layers="24",model_name="m"} 3.0',
        'autoglm_gateway_exit_mode_requests_total{exit="lossless",model_name="m"} 1.0',
        'autoglm_gateway_encoder_requests_total{encoder="vision",model_name="m",outcome="run"} 1.0',
        'autoglm_gateway_encoder_requests_total{encoder="speech",model_name="m",outcome="skipped"} 1.0',
        'autoglm_gateway_request_kv_bytes_sum{model_name="m"} 1e+06',
    ],
)
def test_the_report_is_counted(line: str):
    event = finished(
        drafts_proposed=7, drafts_accepted=6, layer_steps=480, layers_run={"6": 6, "24": 3}, kv_bytes=1_000_000
    )
    assert line in page_after(event).splitlines()


def test_work_that_the_response_cache_spared_is_not_counted():
    assert 'vllm:prefix_cache_queries_total{model_name="m"} 100.0' in page_after(finished(), finished(cached=True))

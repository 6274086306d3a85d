"""Depth as callers see it, on the whole product: the same fields and reports over HTTP, gRPC and raw Triton."""

from __future__ import annotations

from typing import Any

import grpc
import httpx
import openai
import pytest
from google.protobuf import json_format
from tests.e2e.raw_triton import chat_tensors, end_of, events
from tests.stack.conftest import MODEL, Server

from autoglm_protocol.events import TokenDelta
from autoglm_protocol.grpc import autoglm_pb2 as pb
from autoglm_protocol.grpc import autoglm_pb2_grpc

pytestmark = pytest.mark.triton

RAN = {"layers_run", "layer_steps", "drafts_proposed", "drafts_accepted", "kv_bytes"}


def test_the_default_is_lossless_with_layers_for_each_token(server: Server) -> None:
    with openai.OpenAI(base_url=f"{server.http_url}/v1", api_key="EMPTY", max_retries=0) as client:
        stream = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Open WeChat"}],
            temperature=0,
            stream=True,
            extra_body={"return_token_layers": True},
        )
        chunks: list[Any] = [chunk.to_dict() for chunk in stream]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    tokens = [token for chunk in chunks for token in chunk["choices"][0].get("token_layers", ())]
    graph = chunks[-1]["dynamic_graph"]
    assert "".join(token["text"] for token in tokens) == text
    assert {token["layers"] for token in tokens} <= {6, 12, 18, 24}
    assert (graph["exit_mode"], graph["depth"]) == ("lossless", 24)
    assert sum(graph["layers_run"].values()) == len(tokens)
    assert graph.keys() >= RAN


def test_grpc_takes_depth_and_exit_and_reports_as_http(server: Server) -> None:
    over_http = server.chat("Scroll down", depth=12).json()
    message = pb.Message(role=pb.ROLE_USER, parts=[pb.Part(text="Scroll down")])
    options = pb.Options(depth="12", exit="fixed", return_token_layers=True)
    sampling = pb.Sampling(temperature=0, max_tokens=80)
    with grpc.insecure_channel(server.grpc_url) as channel:
        stub: Any = autoglm_pb2_grpc.AutoGLMStub(channel)
        answer = stub.Chat(pb.ChatRequest(model=MODEL, messages=[message], sampling=sampling, options=options))
    graph = json_format.MessageToDict(answer.dynamic_graph)
    assert answer.choices[0].text == over_http["choices"][0]["message"]["content"]
    assert {token.layers for token in answer.choices[0].token_layers} == {12}
    assert graph.keys() >= RAN
    assert graph["layers_run"] == over_http["dynamic_graph"]["layers_run"]


def test_raw_triton_takes_depth_and_exit(server: Server) -> None:
    options = {"depth": 6, "exit": "fixed", "return_token_layers": True}
    stream = events(server.triton_grpc_url, chat_tensors("Go back", options=options))
    layers = [n for event in stream if isinstance(event, TokenDelta) for n in event.layers or ()]
    graph = end_of(stream).dynamic_graph
    assert layers == [6] * 16
    assert (graph["layers_run"], graph["exit_mode"]) == ({"6": 16}, "fixed")


def test_a_shallow_request_never_has_deep_keys_and_values(server: Server) -> None:
    full = server.chat("Type good morning", depth="full", exit="fixed", max_tokens=8, ignore_eos=True).json()
    shallow = server.chat("Type good morning", depth=6, max_tokens=8, ignore_eos=True).json()
    assert shallow["dynamic_graph"]["kv_bytes"] * 4 == full["dynamic_graph"]["kv_bytes"]


def test_an_answer_cut_by_a_stop_string_has_the_whole_report(server: Server) -> None:
    answer = server.chat("Open WeChat", stop=["</think>"], depth="full").json()
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["dynamic_graph"].keys() >= RAN
    assert answer["dynamic_graph"]["layer_steps"] > 0


def test_the_metrics_page_counts_what_the_reports_say(server: Server) -> None:
    def metric(name: str) -> float:
        page = httpx.get(f"{server.http_url}/metrics", headers={"cache-control": "no-cache"})
        lines = page.text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    steps, tokens = metric("autoglm_gateway_layer_steps_total"), metric('autoglm_gateway_tokens_total{layers="12"')
    answer = server.chat("Go home", depth=12).json()
    assert metric("autoglm_gateway_layer_steps_total") - steps == answer["dynamic_graph"]["layer_steps"]
    assert metric('autoglm_gateway_tokens_total{layers="12"') - tokens == answer["dynamic_graph"]["layers_run"]["12"]

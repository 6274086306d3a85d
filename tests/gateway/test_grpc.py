"""autoglm.v1.AutoGLM: the same answers and refusals as HTTP, over the real gRPC port."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tests.gateway.processes import MODEL, Gateway, running_gateway
from tests.gateway.wire import chat_body, image_part, png, post, wav

from autoglm_gateway.grpc_requests import draft_from
from autoglm_gateway.openai_schema import parse_chat
from autoglm_protocol.grpc import autoglm_pb2 as pb
from autoglm_protocol.grpc import autoglm_pb2_grpc

NEVER = ("--fake", "--fake-ttft-s", "3600", "--drain-s", "0.1")


@pytest.fixture
def stub(gateway: Gateway) -> Iterator[Any]:
    with grpc.insecure_channel(gateway.grpc) as channel:
        yield autoglm_pb2_grpc.AutoGLMStub(channel)


def request(*parts: pb.Part, sampling: pb.Sampling | None = None, options: pb.Options | None = None) -> pb.ChatRequest:
    message = pb.Message(role=pb.ROLE_USER, parts=parts or [pb.Part(text="Hi")])
    return pb.ChatRequest(model=MODEL, messages=[message], sampling=sampling, options=options)


def refused(call: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def test_models_are_those_of_http(stub: Any):
    assert list(stub.ListModels(pb.ListModelsRequest()).names) == ["autoglm-phone-tiny", "autoglm-phone-9b"]


def test_an_answer_is_that_of_http(stub: Any, gateway: Gateway):
    """Check 38."""
    over_http = post(gateway, chat_body([image_part(png()), {"type": "text", "text": "Hi"}], max_tokens=9)).json()
    parts = (pb.Part(image=png()), pb.Part(text="Hi"))
    over_grpc = stub.Chat(request(*parts, sampling=pb.Sampling(max_tokens=9)))

    assert over_grpc.choices[0].text == over_http["choices"][0]["message"]["content"]
    assert over_grpc.choices[0].finish_reason == pb.FINISH_REASON_LENGTH
    assert over_grpc.usage.prompt_tokens == over_http["usage"]["prompt_tokens"]
    assert over_grpc.usage.image_tokens == over_http["usage"]["prompt_tokens_details"]["image_tokens"]
    assert json_format.MessageToDict(over_grpc.dynamic_graph) == over_http["dynamic_graph"]


def test_a_stream_says_the_same_as_the_whole_answer(stub: Any):
    """Check 38."""
    whole = stub.Chat(request())
    started, *deltas, finished = stub.ChatStream(request())

    assert started.started.usage.prompt_tokens == whole.usage.prompt_tokens
    assert "".join(event.delta.text for event in deltas) == whole.choices[0].text
    assert finished.finished.usage == whole.usage
    assert finished.finished.finish_reason == pb.FINISH_REASON_STOP


def test_reasoning_is_split_when_asked(stub: Any):
    whole = stub.Chat(request()).choices[0].text
    split = stub.Chat(request(options=pb.Options(return_reasoning=True))).choices[0]
    deltas = [event.delta for event in stub.ChatStream(request(options=pb.Options(return_reasoning=True)))]

    assert f"<think>{split.reasoning}</think>{split.text}" == whole
    assert "".join(delta.reasoning for delta in deltas) == split.reasoning


def test_every_sampling_field_arrives(stub: Any):
    sampling = pb.Sampling(
        temperature=0.5, top_p=0.9, top_k=-1, seed=7, stop=["</think>"], logit_bias={5: 1.5}, logprobs=True, n=2
    )
    choices = stub.Chat(request(sampling=sampling)).choices

    assert len(choices) == 2
    assert choices[0].logprobs[0].token == b"<think>"
    assert "</think>" not in choices[0].text


PHONE = [pb.Tool(phone_actions=pb.PhoneActions())]


def test_an_action_becomes_a_call_whole_and_streamed(stub: Any, gateway: Gateway):
    """Check 25."""
    asked = request()
    asked.tools.extend(PHONE)
    (choice,) = stub.Chat(asked).choices
    deltas = [event for event in stub.ChatStream(asked)]
    over_http = post(gateway, chat_body(tools=[{"type": "phone_actions"}])).json()["choices"][0]

    (call,) = choice.tool_calls
    assert (call.name, json.loads(call.arguments)) == ("tap", {"element": [499, 312]})
    assert choice.text == over_http["message"]["content"]
    assert choice.finish_reason == deltas[-1].finished.finish_reason == pb.FINISH_REASON_TOOL_CALLS
    assert [(c.name, c.arguments) for event in deltas for c in event.delta.tool_calls] == [(call.name, call.arguments)]
    assert "".join(event.delta.text for event in deltas) == choice.text


def test_only_named_tools_may_be_called(stub: Any):
    asked = request()
    asked.tools.extend(PHONE)
    asked.tool_choice.names.append("home")

    assert not stub.Chat(asked).choices[0].tool_calls
    asked.tool_choice.names[0] = "fly"
    assert dict(refused(lambda: stub.Chat(asked)).trailing_metadata())["error-param"] == "tool_choice"


def test_what_became_of_an_action_may_be_a_screenshot(stub: Any):
    call = pb.ToolCall(id="c1", name="tap", arguments='{"element": [1, 2]}')
    asked = request()
    asked.messages.append(pb.Message(role=pb.ROLE_ASSISTANT, tool_calls=[call]))
    asked.messages.append(pb.Message(role=pb.ROLE_TOOL, tool_call_id="c1", parts=[pb.Part(image=png())]))

    assert stub.Chat(asked).usage.image_tokens > 0
    asked.messages[-1].tool_call_id = "another"
    assert refused(lambda: stub.Chat(asked)).code() is grpc.StatusCode.INVALID_ARGUMENT


def test_functions_and_their_results_are_those_of_chat():
    weather = {"name": "weather", "description": "of a city", "parameters": {"type": "object", "minProperties": 1}}
    function = pb.Function(name="weather", description="of a city")
    function.parameters.update(weather["parameters"])
    call = pb.ToolCall(id="c1", name="weather", arguments="{}")
    asked = request()
    asked.tools.append(pb.Tool(function=function))
    asked.messages.append(pb.Message(role=pb.ROLE_ASSISTANT, tool_calls=[call]))
    asked.messages.append(pb.Message(role=pb.ROLE_TOOL, tool_call_id="c1", parts=[pb.Part(text="rain")]))
    body = chat_body(tools=[{"type": "function", "function": weather}])
    called = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    body["messages"] += [
        {"role": "assistant", "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]
    over_grpc = draft_from(asked, features=frozenset(), stream=False)
    over_http = parse_chat(body, features=frozenset())

    assert over_grpc.messages == over_http.messages
    assert over_grpc.tools == over_http.tools
    assert over_grpc.options.chat_template_kwargs == over_http.options.chat_template_kwargs


def test_a_named_medium_is_sent_once(stub: Any):
    first = stub.Chat(request(pb.Part(image=png(), uuid="grpc-1")))

    assert stub.Chat(request(pb.Part(image=b"", uuid="grpc-1"))).usage == first.usage


def test_sounds_come_as_bytes(stub: Any):
    assert stub.Chat(request(pb.Part(audio=wav()))).usage.audio_tokens > 0


def test_messages_above_4_mib_are_taken(stub: Any):
    """Check 38."""
    padded = png()[:-12] + b"\x00\x50\x00\x00tEXt" + bytes(0x500000) + bytes(4) + png()[-12:]

    assert stub.Chat(request(pb.Part(image=padded))).usage.image_tokens > 0


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"model": "gpt-4"}, grpc.StatusCode.NOT_FOUND, "model"),
        ({"messages": []}, grpc.StatusCode.INVALID_ARGUMENT, "messages"),
        ({"messages": [pb.Message(role=pb.ROLE_USER)]}, grpc.StatusCode.INVALID_ARGUMENT, "messages[0].parts"),
        (
            {"messages": [pb.Message(role=pb.ROLE_USER, parts=[pb.Part(image=b"no")])]},
            grpc.StatusCode.INVALID_ARGUMENT,
            "messages[0].parts[0].image",
        ),
        ({"tools": [pb.Tool()]}, grpc.StatusCode.INVALID_ARGUMENT, "tools[0]"),
        (
            {"tools": [pb.Tool(function=pb.Function(name="no spaces"))]},
            grpc.StatusCode.INVALID_ARGUMENT,
            "tools[0].function.name",
        ),
        ({"sampling": pb.Sampling(temperature=3)}, grpc.StatusCode.INVALID_ARGUMENT, "temperature"),
        ({"options": pb.Options(depth="7")}, grpc.StatusCode.INVALID_ARGUMENT, "depth"),
        ({"options": pb.Options(max_reasoning_steps=-1)}, grpc.StatusCode.INVALID_ARGUMENT, "max_reasoning_steps"),
    ],
)
def test_a_refusal_is_a_status_that_names_the_field(stub: Any, change: dict[str, Any], code: Any, param: str):
    """Check 38."""
    messages = [pb.Message(role=pb.ROLE_USER, parts=[pb.Part(text="Hi")])]
    bad = pb.ChatRequest(**{"model": MODEL, "messages": messages, **change})

    for call in (lambda: stub.Chat(bad), lambda: list(stub.ChatStream(bad))):
        error = refused(call)
        assert error.code() is code
        assert dict(error.trailing_metadata())["error-param"] == param


def test_the_request_id_is_echoed(stub: Any):
    _, call = stub.Chat.with_call(request(), metadata=(("x-request-id", "mine"),))

    assert dict(call.initial_metadata())["x-request-id"] == "mine"


def test_a_deadline_and_a_cancel_free_the_place_within_a_second():
    """Check 38."""
    with running_gateway(*NEVER) as gateway, grpc.insecure_channel(gateway.grpc) as channel:
        stub = autoglm_pb2_grpc.AutoGLMStub(channel)
        assert refused(lambda: stub.Chat(request(), timeout=0.2)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        gateway.wait_for_metric("vllm:num_requests_running", 0)

        call = stub.ChatStream(request())
        next(call)
        call.cancel()
        gateway.wait_for_metric("vllm:num_requests_running", 0)
        gateway.wait_for_metric("autoglm_gateway_requests_cancelled_total", 2)


def test_a_full_queue_is_resource_exhausted():
    arguments = (*NEVER, "--max-running", "1", "--max-waiting", "0")
    with running_gateway(*arguments) as gateway, grpc.insecure_channel(gateway.grpc) as channel:
        stub = autoglm_pb2_grpc.AutoGLMStub(channel)
        running = stub.ChatStream(request())
        next(running)
        error = refused(lambda: stub.Chat(request()))
        running.cancel()

        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert int(dict(error.trailing_metadata())["retry-after"]) >= 1


def test_a_backend_that_is_not_ready_is_unavailable():
    """Check 38."""
    with running_gateway("--fake", "--no-fake-ready") as gateway, grpc.insecure_channel(gateway.grpc) as channel:
        stub = autoglm_pb2_grpc.AutoGLMStub(channel)
        for call in (lambda: stub.Chat(request()), lambda: list(stub.ChatStream(request()))):
            error = refused(call)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert dict(error.trailing_metadata())["error-code"] == "backend_unavailable"


def test_a_failure_in_the_middle_ends_the_stream_with_a_status():
    with running_gateway("--fake", "--fake-fail-at-token", "3") as gateway:  # noqa: SIM117
        with grpc.insecure_channel(gateway.grpc) as channel:
            call = autoglm_pb2_grpc.AutoGLMStub(channel).ChatStream(request())
            assert refused(lambda: list(call)).code() is grpc.StatusCode.INTERNAL


@pytest.mark.parametrize("service", ["", "autoglm.v1.AutoGLM"])
def test_health_says_serving(gateway: Gateway, service: str):
    with grpc.insecure_channel(gateway.grpc) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))

    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_health_says_not_serving_while_the_backend_is_not_ready():
    with running_gateway("--fake", "--no-fake-ready") as gateway, grpc.insecure_channel(gateway.grpc) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="autoglm.v1.AutoGLM"))

    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_reflection_lists_the_service(gateway: Gateway):
    """Check 38."""
    with grpc.insecure_channel(gateway.grpc) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        answers = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        names = [service.name for service in next(answers).list_services_response.service]

    assert "autoglm.v1.AutoGLM" in names

"""Spans of the real process as an OpenTelemetry collector gets them."""

from __future__ import annotations

import grpc
from tests.gateway.processes import MODEL, running_gateway
from tests.gateway.wire import chat_body, post, stream_lines
from tests.otlp import collector

from autoglm_protocol.grpc import autoglm_pb2 as pb
from autoglm_protocol.grpc import autoglm_pb2_grpc

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADERS = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


def test_a_request_is_a_span_of_the_callers_trace_with_its_steps_as_children():
    with collector() as collected:
        with running_gateway("--fake", "--otlp-endpoint", collected.endpoint) as gateway:
            post(gateway, chat_body(), headers=HEADERS)
        by_name = {span.name: span for span in collected.spans}
        root = by_name["POST /v1/chat/completions"]

    assert root.trace_id.hex() == TRACE
    assert root.parent_span_id.hex() == PARENT
    for step in ("admission", "media", "triton"):
        assert by_name[step].parent_span_id == root.span_id
        assert by_name[step].trace_id == root.trace_id


def test_grpc_and_streams_are_traced_too_and_refusals_are_errors():
    with collector() as collected:
        with running_gateway("--fake", "--otlp-endpoint", collected.endpoint) as gateway:
            stream_lines(gateway, chat_body())
            post(gateway, chat_body(depth=7))
            with grpc.insecure_channel(gateway.grpc) as channel:
                message = pb.Message(role=pb.ROLE_USER, parts=[pb.Part(text="Hi")])
                autoglm_pb2_grpc.AutoGLMStub(channel).Chat(
                    pb.ChatRequest(model=MODEL, messages=[message]), metadata=tuple(HEADERS.items())
                )
        over_grpc = next(span for span in collected.spans if span.name == "autoglm.v1.AutoGLM/Chat")
        failed = [span for span in collected.spans if span.status.code == span.status.STATUS_CODE_ERROR]

    assert over_grpc.trace_id.hex() == TRACE
    assert {span.name for span in failed} == {"triton", "POST /v1/chat/completions"}
    assert sum(span.name == "triton" for span in collected.spans) == 3

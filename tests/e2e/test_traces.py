"""One trace from the caller through gateway and Triton to encoders and decoder."""

from __future__ import annotations

import secrets
import uuid
from typing import Any

import httpx
import pytest
from tests.e2e.stack import Stack
from tests.e2e.test_chat_http import body, picture, png, sound, wav
from tests.otlp import Collector

pytestmark = pytest.mark.triton

ROOT = "POST /v1/chat/completions"
PARTS = ("preprocess", "vision_encoder", "speech_encoder", "text_decoder")


def traced(stack: Stack, traces: Collector, payload: dict[str, Any]) -> dict[str, Any]:
    """The spans of one request by name."""
    trace_id, parent_id = uuid.uuid4().hex, secrets.token_hex(8)
    headers = {"traceparent": f"00-{trace_id}-{parent_id}-01", "cache-control": "no-store"}
    httpx.post(f"{stack.http}/v1/chat/completions", json=payload, headers=headers, timeout=60)
    return traces.trace(trace_id, last=ROOT)


def attributes(span: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


def within(inner: Any, outer: Any) -> bool:
    return (
        inner.parent_span_id == outer.span_id
        and outer.start_time_unix_nano <= inner.start_time_unix_nano
        and inner.start_time_unix_nano <= inner.end_time_unix_nano <= outer.end_time_unix_nano
    )


def test_spans_of_encoders_and_decoder_lie_within_tritons_and_that_within_the_gateways(stack: Stack, traces: Collector):
    spans = traced(stack, traces, body([picture(png("navy")), sound(wav()), {"type": "text", "text": "Go"}]))

    assert within(spans["triton"], spans[ROOT])
    assert within(spans["autoglm_phone"], spans["triton"])
    assert all(within(spans[part], spans["autoglm_phone"]) for part in PARTS)
    ends = [spans[part].end_time_unix_nano for part in PARTS]
    starts = [spans[part].start_time_unix_nano for part in PARTS]
    assert ends[0] <= min(starts[1:])
    assert max(ends[1:3]) <= starts[3]
    assert traces.services[spans["triton"].span_id] == "autoglm-gateway"
    assert traces.services[spans["text_decoder"].span_id] == "autoglm-triton"


def test_the_decoders_span_says_depth_and_first_token(stack: Stack, traces: Collector):
    decoder = traced(stack, traces, body("Go back", max_tokens=5))["text_decoder"]

    assert attributes(decoder)["completion_tokens"] == 5
    assert attributes(decoder)["exit_mode"] == "lossless"
    (first,) = decoder.events
    assert first.name == "first_token"
    assert decoder.start_time_unix_nano < first.time_unix_nano <= decoder.end_time_unix_nano


def test_an_encoder_that_did_not_run_has_no_span(stack: Stack, traces: Collector):
    spans = traced(stack, traces, body("Go back"))

    assert not {"vision_encoder", "speech_encoder"} & spans.keys()


def test_a_request_that_triton_refuses_has_its_spans_too(stack: Stack, traces: Collector):
    spans = traced(stack, traces, body("word " * 3000))

    assert spans["triton"].status.code == spans["triton"].status.STATUS_CODE_ERROR
    assert within(spans["preprocess"], spans["autoglm_phone"])


def test_a_caller_that_wants_no_trace_costs_none(stack: Stack, traces: Collector):
    trace_id = uuid.uuid4().hex
    headers = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-00"}
    httpx.post(f"{stack.http}/v1/chat/completions", json=body("Go back"), headers=headers, timeout=60)
    traced(stack, traces, body("Go back"))

    assert all(span.trace_id.hex() != trace_id for span in traces.spans)

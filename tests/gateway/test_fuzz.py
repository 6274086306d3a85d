"""Bytes that no client would send: the JSON and multipart parsers answer 400 or better, at once, and never break."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.gateway.processes import MODEL, Gateway
from tests.gateway.wire import chat_body, post, wav

from autoglm_gateway.http_body import MAX_JSON_DEPTH
from autoglm_gateway.multipart import parse_form
from autoglm_gateway.openai_fields import KNOWN_FIELDS
from autoglm_protocol.errors import InvalidRequestError

ENDPOINTS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/multimodal/completions",
    "/v1/responses",
    "/v1/audio/transcriptions",
    "/tokenize",
    "/detokenize",
)
UNHURRIED = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
VALID = json.dumps(chat_body("Hi")).encode()
HEADER = st.sampled_from(
    [
        b'content-disposition: form-data; name="file"; filename="a.wav"',
        b'content-disposition: form-data; name="model"',
        b"content-disposition: form-data",
        b'content-disposition: form-data; name="a"; name="b"; filename*=utf-8\'\'%ff',
        b"content-transfer-encoding: base64",
        b"content-transfer-encoding: quoted-printable",
        b"content-type: multipart/mixed; boundary=a",
        b"content-disposition: attachment",
        b"x" * 9000,
        b":",
    ]
)
PART = st.builds(
    lambda headers, body, end: b"\r\n".join([*headers, b"", body]) + end,
    st.lists(HEADER | st.binary(max_size=30), max_size=3),
    st.binary(max_size=60) | st.sampled_from([b"--a", b"\r\n--", wav()]),
    st.sampled_from([b"\r\n", b"\n", b""]),
)
FORM = st.builds(
    lambda parts, end: b"".join(b"--a\r\n" + part for part in parts) + end,
    st.lists(PART, max_size=4),
    st.sampled_from([b"--a--\r\n", b"--a--", b"--a", b""]),
)


@given(st.sampled_from(ENDPOINTS), st.binary(max_size=80))
@example("/v1/chat/completions", b"[" * 100_000)
@example("/v1/chat/completions", b'{"a":' * 100_000)
@example("/v1/responses", b'"\\ud800"')
@example("/tokenize", b"1e999999")
@example("/detokenize", b'{"tokens": [' + b"1," * 9999 + b"1]}")
@example("/v1/chat/completions", b"\xef\xbb\xbf" + VALID)
@settings(UNHURRIED, max_examples=60)
def test_any_bytes_as_a_body_are_refused_or_answered(gateway: Gateway, path: str, body: bytes) -> None:
    response = httpx.post(f"http://{gateway.http}{path}", content=body, timeout=20)
    assert response.status_code in (200, 400), response.text


@given(st.integers(0, len(VALID)), st.binary(max_size=3), st.integers(0, 4))
@settings(UNHURRIED, max_examples=60)
def test_any_damage_to_a_request_is_refused_or_answered(gateway: Gateway, at: int, new: bytes, gone: int) -> None:
    body = VALID[:at] + new + VALID[at + gone :]
    response = httpx.post(f"{gateway.v1}/chat/completions", content=body, timeout=20)
    assert response.status_code in (200, 400, 404), response.text


@pytest.mark.triton
@pytest.mark.parametrize("depth", [MAX_JSON_DEPTH - 4, MAX_JSON_DEPTH + 1])
@pytest.mark.parametrize("field", sorted(KNOWN_FIELDS))
def test_deeply_nested_values_are_refused_or_answered(triton_gateway: Gateway, field: str, depth: int) -> None:
    for opening, closing in (('{"a":', "}"), ("[", "]")):
        nested = opening * depth + "1" + closing * depth
        fields = {"model": json.dumps(MODEL), "messages": '[{"role": "user", "content": "say ok"}]', field: nested}
        body = "{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}"
        response = httpx.post(f"{triton_gateway.v1}/chat/completions", content=body, timeout=20)
        assert response.status_code in (200, 400, 404), response.text
        assert depth < MAX_JSON_DEPTH or response.json()["error"]["code"] == "invalid_json"


@pytest.mark.parametrize("number", ["1e400", "-1e400", "9" * 400, "NaN", "-0", "1.0", "18446744073709551616", "true"])
def test_strange_numbers_are_refused_or_answered(gateway: Gateway, number: str) -> None:
    for field in ("temperature", "max_tokens", "n", "seed", "priority", "top_k", "max_pixels", "logit_bias"):
        value = f'{{"5": {number}}}' if field == "logit_bias" else number
        body = json.dumps(chat_body("Hi"))[:-1] + f', "{field}": {value}}}'
        response = httpx.post(f"{gateway.v1}/chat/completions", content=body, timeout=20)
        assert response.status_code in (200, 400), response.text


@given(FORM)
@settings(UNHURRIED, max_examples=300)
def test_no_form_breaks_the_parser(body: bytes) -> None:
    with contextlib.suppress(InvalidRequestError):
        parse_form(body, "multipart/form-data; boundary=a")


@given(FORM, st.text(max_size=20) | st.sampled_from(["multipart/form-data; boundary=a", "multipart/form-data"]))
@settings(UNHURRIED, max_examples=60)
def test_no_form_breaks_the_server(gateway: Gateway, body: bytes, content_type: str) -> None:
    headers = {"content-type": content_type.encode("utf-8", "replace").replace(b"\n", b"").replace(b"\r", b"")}
    with contextlib.suppress(httpx.LocalProtocolError):
        response = httpx.post(f"{gateway.v1}/audio/transcriptions", content=body, headers=headers, timeout=20)
        assert response.status_code in (200, 400, 404), response.text


def test_refused_forms_leave_no_memory_behind() -> None:
    form = b'--a\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n' + bytes(100_000) + b"\r\n--b"

    def refuse() -> None:
        with contextlib.suppress(InvalidRequestError):
            parse_form(form, "multipart/form-data; boundary=a")

    refuse()
    tracemalloc.start()
    try:
        for _ in range(50):
            refuse()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 100_000


def test_the_gateway_still_answers(gateway: Gateway) -> None:
    gateway.wait_for_metric("vllm:num_requests_running", 0)
    answer: Any = post(gateway, chat_body()).json()
    assert answer["choices"][0]["finish_reason"] == "stop"

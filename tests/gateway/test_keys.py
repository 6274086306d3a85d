"""API keys and their quotas, over HTTP and gRPC."""

from __future__ import annotations

import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

import grpc
import httpx
import openai
import pytest
from tests.gateway.processes import MODEL, running_gateway
from tests.gateway.wire import chat_body, post, refusal

from autoglm_gateway.api_keys import ApiKeys, Caller
from autoglm_gateway.quotas import Quotas, duration
from autoglm_protocol.errors import AuthenticationError, OverloadedError
from autoglm_protocol.grpc import autoglm_pb2 as pb
from autoglm_protocol.grpc import autoglm_pb2_grpc

KEY, OTHER = "sk-the-key", "sk-the-other"
LIMIT_HEADERS = [
    f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")
]


def key_file(folder: Path, *entries: dict[str, Any]) -> Path:
    path = folder / "keys.json"
    path.write_text(json.dumps({"keys": entries}))
    return path


def entry(key: str, **limits: int) -> dict[str, Any]:
    return {"name": f"owner-{len(key)}", "sha256": hashlib.sha256(key.encode()).hexdigest(), **limits}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_without_a_right_key_nothing_under_v1_answers(tmp_path: Path):
    """Check 33."""
    with running_gateway("--fake", "--api-keys-file", str(key_file(tmp_path, entry(KEY), entry(OTHER)))) as gateway:
        assert refusal(post(gateway, chat_body()), 401)["code"] == "missing_api_key"
        wrong = post(gateway, chat_body(), headers=bearer("sk-wrong"))
        assert refusal(wrong, 401)["code"] == "invalid_api_key"
        assert wrong.headers["www-authenticate"] == "Bearer"
        refusal(httpx.get(f"{gateway.v1}/models"), 401)
        for key in (KEY, OTHER):
            assert post(gateway, chat_body(), headers=bearer(key)).status_code == 200
        with (
            openai.OpenAI(base_url=gateway.v1, api_key="sk-wrong") as client,
            pytest.raises(openai.AuthenticationError),
        ):
            client.models.list()
        for path in ("/health/live", "/health/ready", "/metrics"):
            assert httpx.get(f"http://{gateway.http}{path}").status_code == 200
        assert KEY not in json.dumps(gateway.log)


def test_grpc_wants_the_same_key(tmp_path: Path):
    """Check 33."""
    path = key_file(tmp_path, entry(KEY))
    with (
        running_gateway("--fake", "--api-keys-file", str(path)) as gateway,
        grpc.insecure_channel(gateway.grpc) as channel,
    ):
        stub = autoglm_pb2_grpc.AutoGLMStub(channel)
        message = pb.Message(role=pb.ROLE_USER, parts=[pb.Part(text="Hi")])
        request = pb.ChatRequest(model=MODEL, messages=[message])
        with pytest.raises(grpc.RpcError) as refused:
            stub.Chat(request)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert stub.Chat(request, metadata=(("authorization", f"Bearer {KEY}"),)).choices[0].text


def test_a_changed_key_file_is_used_without_a_restart(tmp_path: Path):
    path = key_file(tmp_path, entry(KEY))
    with running_gateway("--fake", "--api-keys-file", str(path)) as gateway:
        assert post(gateway, chat_body(), headers=bearer(OTHER)).status_code == 401
        key_file(tmp_path, entry(OTHER))
        deadline_s = time.monotonic() + 5
        while post(gateway, chat_body(), headers=bearer(OTHER)).status_code != 200:
            assert time.monotonic() < deadline_s
        assert post(gateway, chat_body(), headers=bearer(KEY)).status_code == 401


def test_a_changed_key_file_that_is_wrong_leaves_the_old_keys(tmp_path: Path):
    path = key_file(tmp_path, entry(KEY))
    with running_gateway("--fake", "--api-keys-file", str(path)) as gateway:
        path.write_text("{")
        deadline_s = time.monotonic() + 5
        while not any(line["message"] == "the changed API key file is not used" for line in gateway.log):
            assert post(gateway, chat_body(), headers=bearer(KEY)).status_code == 200
            assert time.monotonic() < deadline_s


def test_all_six_rate_limit_headers_come_with_answers_streams_and_refusals(tmp_path: Path):
    """Check 31."""
    path = key_file(tmp_path, entry(KEY, requests_per_min=2, tokens_per_min=1000))
    with running_gateway("--fake", "--api-keys-file", str(path)) as gateway:
        whole = post(gateway, chat_body(max_tokens=1), headers=bearer(KEY))
        stream = post(gateway, chat_body(max_tokens=1, stream=True), headers=bearer(KEY))
        refused = post(gateway, chat_body(), headers=bearer(KEY))

        for response in (whole, stream, refused):
            assert all(response.headers[name] for name in LIMIT_HEADERS)
            resets = [response.headers[f"x-ratelimit-reset-{of}"] for of in ("requests", "tokens")]
            assert all(re.fullmatch(r"(\d+m)?\d+s|\d+ms", reset) for reset in resets), resets
        assert [r.headers["x-ratelimit-remaining-requests"] for r in (whole, stream, refused)] == ["1", "0", "0"]
        assert refusal(refused, 429)["code"] == "rate_limit_exceeded"
        assert 1 <= int(refused.headers["retry-after"]) <= 30


async def test_requests_come_back_over_a_minute():
    now_s = [0.0]
    quotas = Quotas(clock=lambda: now_s[0])
    caller = Caller(name="a", requests_per_min=2)
    for _ in range(2):
        async with quotas.request(caller):
            pass
    with pytest.raises(OverloadedError) as refused:
        async with quotas.request(caller):
            pass
    assert refused.value.retry_after_s == 30
    now_s[0] = 30
    async with quotas.request(caller):
        pass


async def test_tokens_are_charged_after_the_answer_and_may_be_overdrawn():
    now_s = [0.0]
    quotas = Quotas(clock=lambda: now_s[0])
    caller = Caller(name="a", tokens_per_min=60)
    async with quotas.request(caller):
        quotas.charge(caller, 90)
    assert (await quotas.headers(caller))["x-ratelimit-remaining-tokens"] == "0"
    with pytest.raises(OverloadedError) as refused:
        async with quotas.request(caller):
            pass
    assert refused.value.retry_after_s == 31


async def test_requests_at_once_are_limited():
    quotas = Quotas()
    caller = Caller(name="a", max_concurrent=1)
    async with quotas.request(caller):
        with pytest.raises(OverloadedError):
            async with quotas.request(caller):
                pass
    async with quotas.request(caller):
        pass


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0ms"), (0.12, "120ms"), (1, "1s"), (59.4, "59s"), (360, "6m0s"), (61, "1m1s")]
)
def test_durations_are_spelt_as_openai_does(seconds: float, text: str):
    """Check 31."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"keys": [{}]}', '{"keys": [{"name": "a", "sha256": "00"}]}', '{"keys": [1]}']
)
def test_a_wrong_key_file_is_refused_at_the_start(tmp_path: Path, text: str):
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(ValueError, match=r"keys\.json is wrong"):
        ApiKeys(tmp_path / "keys.json")


def test_a_missing_key_file_is_refused_at_the_start(tmp_path: Path):
    with pytest.raises(ValueError, match="cannot read"):
        ApiKeys(tmp_path / "none.json")


@pytest.mark.parametrize("header", [None, "", "Basic abc", "Bearer", "Bearer ", f"Bearer {KEY}x"])
def test_only_the_whole_key_opens(tmp_path: Path, header: str | None):
    with pytest.raises(AuthenticationError):
        ApiKeys(key_file(tmp_path, entry(KEY))).authenticate(header)

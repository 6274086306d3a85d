"""Clients that know nothing of this server, unmodified, against the real process."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import openai
import pytest
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from tests.gateway.processes import MODEL, Gateway, running_gateway
from tests.gateway.wire import b64, chat_body, image_part, png, text_part

from autoglm_gateway.fake_backend import FakeKnobs
from autoglm_protocol.actions import parse_action, split_reply

TEXT = FakeKnobs().fake_text


@pytest.fixture
def client(gateway: Gateway):
    with openai.OpenAI(base_url=gateway.v1, api_key="EMPTY", max_retries=0) as client:
        yield client


def phone_agent_request() -> dict[str, Any]:
    """What Open-AutoGLM sends at every step."""
    screenshot = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64(png(108, 240))}"}}
    return {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "The current date: 2026-01-01. You are a phone agent."},
            {"role": "user", "content": [screenshot, text_part('Open Bluetooth\n\n{"current_app": "Settings"}')]},
        ],
        "max_tokens": 3000,
        "temperature": 0.0,
        "top_p": 0.85,
        "frequency_penalty": 0.2,
        "extra_body": {},
        "stream": True,
    }


def test_the_phone_agents_request_ends_in_an_action(client: openai.OpenAI):
    """Check 1."""
    text, reasons = "", []
    for chunk in client.chat.completions.create(**phone_agent_request()):
        if not chunk.choices:
            continue
        text += chunk.choices[0].delta.content or ""
        reasons.append(chunk.choices[0].finish_reason)

    assert parse_action(split_reply(text).action_text).name == "Tap"
    assert not text.endswith("</answer>")
    assert reasons[-1] == "stop"


def test_the_phone_agents_preflight_answers_with_text(client: openai.OpenAI):
    answer = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hi"}], max_tokens=5, temperature=0.1, stream=False
    )

    assert answer.choices[0].message.content
    assert answer.usage is not None


def test_the_sdk_lists_models(client: openai.OpenAI):
    assert [model.id for model in client.models.list()] == ["autoglm-phone-tiny", "autoglm-phone-9b"]
    assert client.models.retrieve(MODEL).id == MODEL


def test_the_sdk_sees_the_request_id_and_our_own_fields(client: openai.OpenAI):
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Hi"}],
        extra_body={"depth": 6, "return_reasoning": True},
        extra_headers={"x-request-id": "mine-1"},
    )

    assert answer._request_id == "mine-1"
    assert answer.model_extra is not None
    assert answer.model_extra["dynamic_graph"]["depth"] == 6
    assert (answer.choices[0].message.model_extra or {})["reasoning_content"]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"model": "gpt-4"}, openai.NotFoundError),
        ({"temperature": 3}, openai.BadRequestError),
        ({"messages": []}, openai.BadRequestError),
    ],
)
def test_the_sdk_raises_its_own_errors(client: openai.OpenAI, fields: dict[str, Any], error: type[Exception]):
    with pytest.raises(error):
        client.chat.completions.create(**{**chat_body(), **fields})


def test_the_sdk_raises_for_a_failure_in_the_middle_of_a_stream():
    """Check 29."""
    with running_gateway("--fake", "--fake-fail-at-token", "3") as gateway:  # noqa: SIM117
        with openai.OpenAI(base_url=gateway.v1, api_key="EMPTY") as client:
            stream = client.chat.completions.create(**chat_body(stream=True))
            with pytest.raises(openai.APIError, match="failed"):
                list(stream)


async def test_the_async_sdk_streams_several_answers_at_once(gateway: Gateway):
    async with openai.AsyncOpenAI(base_url=gateway.v1, api_key="EMPTY") as client:

        async def text() -> str:
            stream = await client.chat.completions.create(**chat_body(stream=True))
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        assert await asyncio.gather(*(text() for _ in range(32))) == [TEXT] * 32


def test_langchain_streams_with_our_options(gateway: Gateway):
    model = ChatOpenAI(
        base_url=gateway.v1,
        api_key="EMPTY",
        model=MODEL,
        streaming=True,
        extra_body={"enable_thinking": True, "return_reasoning": True},
    )
    message = HumanMessage(content=[image_part(png()), text_part("Open Bluetooth")])

    assert "".join(str(chunk.content) for chunk in model.stream([message])) == TEXT.partition("</think>")[2]
    assert str(model.invoke([message]).content) == TEXT.partition("</think>")[2]


def test_plain_http_without_a_content_type_is_enough(gateway: Gateway):
    body = b'{"model":"autoglm-phone-9b","messages":[{"role":"user","content":"Hi"}]}'

    assert httpx.post(f"{gateway.v1}/chat/completions", content=body).status_code == 200

"""Unmodified clients against the whole product."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from tests.stack.conftest import EXAMPLES, MODEL, Server, audio_part, image_part

from autoglm_protocol.actions import parse_action, split_reply

pytestmark = pytest.mark.triton

SYSTEM_PROMPT = "The current date: 2026-11-21. You are a phone agent. " + "do(action=...) lists an action. " * 100


def agent_request(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """What Open-AutoGLM sends at every step."""
    return {
        "model": "autoglm-phone-9b",
        "messages": messages,
        "max_tokens": 3000,
        "temperature": 0.0,
        "top_p": 0.85,
        "frequency_penalty": 0.2,
        "extra_body": {},
        "stream": True,
    }


def read(chunks: Any) -> tuple[str, list[str | None]]:
    text, reasons = "", []
    for chunk in chunks:
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
            reasons.append(chunk.choices[0].finish_reason)
    return text, reasons


@pytest.fixture
def client(server: Server):
    with openai.OpenAI(base_url=f"{server.http_url}/v1", api_key="EMPTY", max_retries=0) as client:
        yield client


def test_the_phone_agents_request_ends_in_an_action_without_a_closing_tag(client: openai.OpenAI) -> None:
    """Check 1."""
    turn = {
        "role": "user",
        "content": [
            image_part("settings.png"),
            {"type": "text", "text": 'Open Bluetooth\n\n{"current_app": "Settings"}'},
        ],
    }
    text, reasons = read(
        client.chat.completions.create(**agent_request([{"role": "system", "content": SYSTEM_PROMPT}, turn]))
    )
    assert "</answer>" not in text
    assert "<|" not in text
    assert text.startswith("<think>")
    parse_action(split_reply(text).action_text)
    assert [r for r in reasons if r] == ["stop"]


def test_an_agent_loop_of_several_steps_ends_in_the_right_actions(client: openai.OpenAI) -> None:
    messages: list[dict[str, Any]] = [{"role": "system", "content": SYSTEM_PROMPT}]
    names = []
    for task in ("Open WeChat", "Go back", "Go to the home screen"):
        messages.append(
            {"role": "user", "content": [{"type": "text", "text": f'{task}\n\n{{"current_app": "System Home"}}'}]}
        )
        text, _ = read(client.chat.completions.create(**agent_request(messages)))
        reply = split_reply(text)
        names.append(parse_action(reply.action_text).name)
        messages.append(
            {"role": "assistant", "content": f"<think>{reply.thought}</think><answer>{reply.action_text}</answer>"}
        )
    assert names == ["Launch", "Back", "Home"]


def test_the_phone_agents_preflight_answers_with_text(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hi"}], max_tokens=5, temperature=0.1, stream=False
    )
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 5


def test_the_async_sdk_streams_the_text_that_the_whole_answer_has(server: Server) -> None:
    async def both() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=f"{server.http_url}/v1", api_key="EMPTY", max_retries=0) as client:
            request: dict[str, Any] = {
                "model": MODEL,
                "messages": [{"role": "user", "content": "打开微信"}],
                "temperature": 0,
            }
            whole = await client.chat.completions.create(**request)
            text = ""
            async for chunk in await client.chat.completions.create(**request, stream=True):
                if chunk.choices:
                    text += chunk.choices[0].delta.content or ""
            return whole.choices[0].message.content or "", text

    whole, streamed = asyncio.run(both())
    assert whole == streamed
    assert whole


def test_langchain_streams_with_reasoning_split_off(server: Server) -> None:
    model = ChatOpenAI(
        base_url=f"{server.http_url}/v1",
        api_key="EMPTY",  # pyright: ignore[reportArgumentType]
        model=MODEL,
        temperature=0,
        streaming=True,
        extra_body={"enable_thinking": True, "return_reasoning": True},
    )
    answer = model.invoke([HumanMessage("Open WeChat")])
    assert isinstance(answer.content, str)
    assert "<think>" not in answer.content
    assert parse_action(split_reply(answer.content).action_text).arguments == {"app": "WeChat"}


def test_a_spoken_command_is_answered_like_any_other(client: openai.OpenAI) -> None:
    sound = audio_part((EXAMPLES / "go_back.wav").read_bytes())
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": [sound]}],
        temperature=0,
        max_tokens=80,  # type: ignore[list-item]
    )
    parse_action(split_reply(answer.choices[0].message.content or "").action_text)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.audio_tokens


def test_two_images_and_consecutive_user_turns(client: openai.OpenAI) -> None:
    turns: list[Any] = [
        {"role": "user", "content": [image_part("home.png"), {"type": "text", "text": "Open Bluetooth"}]},
        {"role": "user", "content": [image_part("settings.png"), {"type": "text", "text": "** Screen Info **\n\n{}"}]},
    ]
    answer = client.chat.completions.create(model=MODEL, messages=turns, temperature=0, max_tokens=80)
    assert answer.usage is not None
    assert (answer.usage.model_extra or answer.usage.to_dict())["prompt_tokens_details"]["image_tokens"] == 440

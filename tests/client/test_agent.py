from __future__ import annotations

import pytest
from tests.client.openai_server import OpenAIServer

from autoglm_client import AgentSession, AsyncAutoGLM, to_pixels
from autoglm_protocol.errors import UnavailableError

TURN = '<think>The row is visible.</think><answer>do(action="Tap", element=[500,250])</answer>'


async def test_the_second_step_sends_what_phone_agents_send(server: OpenAIServer, png: bytes) -> None:
    async with AsyncAutoGLM(server.url) as client:
        session = AgentSession(client, "打开蓝牙", system_prompt="You are a phone agent.")
        await session.step(png, "System Home")
        await session.step(png, "设置")
    system, first, answer, second = server.bodies[1]["messages"]
    assert system == {"role": "system", "content": "You are a phone agent."}
    assert first == {"role": "user", "content": '打开蓝牙\n\n{"current_app": "System Home"}'}
    assert answer == {"role": "assistant", "content": TURN}
    assert [part["type"] for part in second["content"]] == ["image_url", "text"]
    assert second["content"][1]["text"] == '** Screen Info **\n\n{"current_app": "设置"}'


async def test_the_sampling_of_phone_agents_is_the_default_and_can_be_changed(server: OpenAIServer, png: bytes) -> None:
    async with AsyncAutoGLM(server.url) as client:
        await AgentSession(client, "Back", depth=12, max_tokens=100).step(png, "Settings")
    body = server.bodies[0]
    assert (body["temperature"], body["top_p"], body["frequency_penalty"]) == (0.0, 0.85, 0.2)
    assert (body["depth"], body["max_tokens"]) == (12, 100)


async def test_a_step_that_fails_leaves_the_session_as_it_was(server: OpenAIServer, png: bytes) -> None:
    async with AsyncAutoGLM(server.url) as client:
        session = AgentSession(client, "Back")
        server.refusal = (503, {"error": {"message": "draining"}}, {})
        with pytest.raises(UnavailableError, match="draining"):
            await session.step(png, "Settings")
        assert (session.num_steps, session.history) == (0, ())


async def test_a_note_of_the_user_stands_before_the_screen(server: OpenAIServer, png: bytes) -> None:
    async with AsyncAutoGLM(server.url) as client:
        session = AgentSession(client, "Log in")
        await session.step(png, "Bank")
        await session.step(png, "Bank", note="I typed the code.")
    text = server.bodies[1]["messages"][-1]["content"][1]["text"]
    assert text == 'I typed the code.\n\n** Screen Info **\n\n{"current_app": "Bank"}'


@pytest.mark.parametrize(("point", "pixel"), [((0, 0), (0, 0)), ((999, 999), (1078, 2373)), ((500, 250), (540, 594))])
def test_a_point_lands_on_the_screen(point: tuple[int, int], pixel: tuple[int, int]) -> None:
    assert to_pixels(point, 1080, 2376) == pixel

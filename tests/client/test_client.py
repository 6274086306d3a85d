from __future__ import annotations

import base64
import socket
from contextlib import aclosing
from pathlib import Path

import pytest
from PIL import Image
from tests.client.openai_server import GRAPH, OpenAIServer

from autoglm_client import (
    AsyncAutoGLM,
    ConnectionFailedError,
    Finished,
    MediaError,
    ReasoningDelta,
    StreamBrokenError,
    TextDelta,
)
from autoglm_protocol.actions import Action
from autoglm_protocol.errors import (
    ERROR_CLASSES,
    AuthenticationError,
    DeadlineError,
    InternalError,
    InvalidRequestError,
    OverloadedError,
    RequestCancelledError,
)
from autoglm_protocol.events import FinishReason, Usage


async def test_a_stream_is_its_deltas_and_one_finished(server: OpenAIServer) -> None:
    server.deltas = ("蓝", "牙")
    async with AsyncAutoGLM(server.url) as client:
        events = [event async for event in client.stream("Open Bluetooth")]
    assert events == [
        TextDelta(text="蓝"),
        TextDelta(text="牙"),
        Finished(
            finish_reason=FinishReason.STOP,
            usage=Usage(
                prompt_tokens=300, completion_tokens=21, image_tokens=256, cached_tokens=12, reasoning_tokens=5
            ),
            dynamic_graph=GRAPH,
        ),
    ]


async def test_act_parses_thought_and_action(server: OpenAIServer) -> None:
    async with AsyncAutoGLM(server.url) as client:
        reply = await client.act("Open Bluetooth")
    assert reply.thought == "The row is visible."
    assert reply.action == Action(name="Tap", arguments={"element": (500, 250)})
    assert reply.first_token_s is not None
    assert reply.first_token_s <= reply.duration_s


async def test_text_that_is_no_action_is_a_reply_without_action(server: OpenAIServer) -> None:
    server.deltas = ("I am a phone agent.",)
    async with AsyncAutoGLM(server.url) as client:
        reply = await client.act("Who are you?")
    assert (reply.text, reply.action, reply.thought) == ("I am a phone agent.", None, None)


async def test_reasoning_sent_apart_becomes_the_thought(server: OpenAIServer) -> None:
    server.reasoning, server.deltas = ("I tap", " it."), ('do(action="Back")',)
    async with AsyncAutoGLM(server.url) as client:
        events = [event async for event in client.stream("Back", return_reasoning=True)]
        reply = await client.act("Back", return_reasoning=True)
    assert events[0] == ReasoningDelta(text="I tap")
    assert reply.thought == "I tap it."


async def test_a_text_request_is_plain_openai_json(server: OpenAIServer) -> None:
    async with AsyncAutoGLM(server.url, "secret", model="mine") as client:
        await client.act("Hi", depth=12, temperature=0, max_tokens=5)
    assert server.bodies == [
        {
            "model": "mine",
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "depth": 12,
            "temperature": 0,
            "max_tokens": 5,
        }
    ]
    assert server.api_keys == ["Bearer secret"]


async def test_without_a_model_the_servers_first_one_is_used(server: OpenAIServer) -> None:
    async with AsyncAutoGLM(f"{server.url}/v1/") as client:
        await client.act("Hi")
        assert await client.models() == ("first", "second")
    assert server.bodies[0]["model"] == "first"


async def test_media_go_before_the_text_as_they_are(server: OpenAIServer, png: bytes, tmp_path: Path) -> None:
    path = tmp_path / "screen.png"
    path.write_bytes(png)
    wav = b"RIFF\x24\x00\x00\x00WAVEfmt "
    async with AsyncAutoGLM(server.url) as client:
        await client.act("Open", image=[path, png], audio=wav)
    url = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    sound = {"data": base64.b64encode(wav).decode(), "format": "wav"}
    assert server.bodies[0]["messages"][0]["content"] == [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "input_audio", "input_audio": sound},
        {"type": "text", "text": "Open"},
    ]


async def test_a_pillow_image_is_sent_as_png(server: OpenAIServer) -> None:
    async with AsyncAutoGLM(server.url) as client:
        await client.act(image=Image.new("RGB", (4, 4)))
    (part,) = server.bodies[0]["messages"][0]["content"]
    assert part["image_url"]["url"].startswith("data:image/png;base64,iVBORw0KGgo")


async def test_history_stands_before_the_instruction(server: OpenAIServer) -> None:
    async with AsyncAutoGLM(server.url) as client:
        await client.act("Go on", history=[{"role": "system", "content": "You are a phone agent."}])
    assert [m["role"] for m in server.bodies[0]["messages"]] == ["system", "user"]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("nowhere.png", "nowhere.png cannot be read: No such file or directory"),
        (b"hello", "the image is not a PNG, JPEG or WebP picture"),
    ],
)
async def test_a_file_that_is_no_picture_is_refused_before_sending(
    server: OpenAIServer, source: str | bytes, sentence: str
) -> None:
    async with AsyncAutoGLM(server.url) as client:
        with pytest.raises(MediaError, match=sentence):
            await client.act("Open", image=source)
    assert server.bodies == []


async def test_an_empty_request_is_refused_before_sending(server: OpenAIServer) -> None:
    async with AsyncAutoGLM(server.url) as client:
        with pytest.raises(ValueError, match="needs an instruction, an image or audio"):
            await client.act()


REFUSALS = [c for c in ERROR_CLASSES if c is not RequestCancelledError]


@pytest.mark.parametrize("kind", REFUSALS, ids=lambda c: c.__name__)
async def test_each_refusal_is_its_class_with_the_servers_words(server: OpenAIServer, kind: type) -> None:
    detail = {"message": "no, because", "type": "x", "param": "depth", "code": "the_code"}
    server.refusal = (kind.http_status, {"error": detail}, {})
    async with AsyncAutoGLM(server.url) as client:
        with pytest.raises(kind, match="no, because") as caught:
            await client.act("Hi")
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.param) == ("the_code", "depth")


async def test_an_overloaded_server_says_when_to_come_back(server: OpenAIServer) -> None:
    server.refusal = (429, {"error": {"message": "full"}}, {"retry-after": "7"})
    async with AsyncAutoGLM(server.url) as client:
        with pytest.raises(OverloadedError) as caught:
            await client.act("Hi")
    assert caught.value.retry_after_s == 7.0


async def test_a_status_without_a_class_is_judged_by_its_hundred(server: OpenAIServer) -> None:
    server.refusal = (418, {"detail": "teapot"}, {})
    async with AsyncAutoGLM(server.url) as client:
        with pytest.raises(InvalidRequestError, match="HTTP status 418"):
            await client.act("Hi")


@pytest.mark.parametrize(
    ("detail", "kind"),
    [
        ({"message": "late", "type": "invalid_request_error", "code": "deadline_exceeded"}, DeadlineError),
        ({"message": "key", "type": "authentication_error", "code": "other"}, AuthenticationError),
        ({"message": "boom", "type": "unheard_of", "code": None}, InternalError),
    ],
    ids=lambda value: value["message"] if isinstance(value, dict) else value.__name__,
)
async def test_a_failure_inside_the_stream_is_raised_after_its_deltas(
    server: OpenAIServer, detail: dict[str, str], kind: type[Exception]
) -> None:
    server.deltas, server.error_after_deltas = ("half",), detail
    seen = []
    async with AsyncAutoGLM(server.url) as client:
        with pytest.raises(kind, match=detail["message"]):  # noqa: PT012 - the deltas before the failure are the point
            async for event in client.stream("Hi"):
                seen.append(event)
    assert seen == [TextDelta(text="half")]


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"", "ended the stream before the answer was complete"),
        (b"data: [DONE]\n\n", "without a finish reason"),
        (b"data: {oops\n\n", "what is no JSON"),
        (b"data: [1]\n\n", "what is no chunk"),
        (b'data: {"choices": [{"delta": {}, "finish_reason": "bored"}]}\n\n', "unknown finish reason 'bored'"),
    ],
)
async def test_a_broken_stream_is_an_error(server: OpenAIServer, raw: bytes, sentence: str) -> None:
    server.raw_stream = raw
    async with AsyncAutoGLM(server.url) as client:
        with pytest.raises(StreamBrokenError, match=sentence):
            await client.act("Hi")


async def test_closing_a_stream_disconnects_from_the_server(server: OpenAIServer) -> None:
    server.stays_open = True
    async with AsyncAutoGLM(server.url) as client:
        async with aclosing(client.stream("Hi")) as events:
            await anext(events)
        assert server.client_left.wait(timeout=5)


async def test_silence_longer_than_the_timeout_is_a_deadline_error(server: OpenAIServer) -> None:
    server.stays_open = True
    async with AsyncAutoGLM(server.url, model="first", timeout_s=0.2) as client:
        with pytest.raises(DeadlineError, match=r"sent nothing for 0\.2 s"):
            await client.act("Hi")


async def test_nobody_at_the_address_is_a_connection_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: refused at once
        async with AsyncAutoGLM(f"http://127.0.0.1:{unused.getsockname()[1]}") as client:
            with pytest.raises(ConnectionFailedError, match="no server answers at"):
                await client.act("Hi")


async def test_several_choices_are_refused(server: OpenAIServer) -> None:
    async with AsyncAutoGLM(server.url) as client:
        with pytest.raises(ValueError, match="one answer a request"):
            await client.act("Hi", n=2)

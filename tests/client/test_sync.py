from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.client.openai_server import ANSWER, OpenAIServer

from autoglm_client import AutoGLM, Finished
from autoglm_protocol.errors import NotFoundError


def test_act_answers_without_async(server: OpenAIServer) -> None:
    with AutoGLM(server.url) as client:
        assert client.act("Open Bluetooth").text == "".join(ANSWER)


def test_a_stream_yields_and_ends(server: OpenAIServer) -> None:
    with AutoGLM(server.url) as client:
        events = list(client.stream("Open Bluetooth"))
    assert len(events) == len(ANSWER) + 1
    assert isinstance(events[-1], Finished)


def test_errors_come_out_in_the_callers_thread(server: OpenAIServer) -> None:
    server.refusal = (404, {"error": {"message": "no such model", "param": "model"}}, {})
    with AutoGLM(server.url, model="nope") as client, pytest.raises(NotFoundError, match="no such model"):
        list(client.stream("Hi"))


def test_closing_a_stream_disconnects_from_the_server(server: OpenAIServer) -> None:
    server.stays_open = True
    with AutoGLM(server.url) as client:
        events = client.stream("Hi")
        next(events)
        events.close()
        assert server.client_left.wait(timeout=5)


def test_many_threads_share_one_client(server: OpenAIServer) -> None:
    with AutoGLM(server.url) as client, ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda i: client.act(f"Task {i}").text, range(16)))
    assert set(texts) == {"".join(ANSWER)}


def test_close_ends_the_background_thread_and_may_come_twice(server: OpenAIServer) -> None:
    client = AutoGLM(server.url)
    assert client.models() == ("first", "second")
    client.close()
    client.close()
    assert "autoglm-client" not in [thread.name for thread in threading.enumerate()]

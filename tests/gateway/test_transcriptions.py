"""/v1/audio/transcriptions with OpenAI's SDK and by hand (check 20, without times)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import OpenAI
from tests.gateway.processes import MODEL, Gateway
from tests.gateway.wire import refusal, wav

from autoglm_gateway.multipart import parse_form
from autoglm_gateway.transcriptions import MAX_FILE_BYTES
from autoglm_protocol.errors import InvalidRequestError


@pytest.fixture
def client(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=gateway.v1, api_key="none") as client:
        yield client


def ask(gateway: Gateway, data: bytes | None = None, **fields: str) -> httpx.Response:
    files: Any = {"file": ("a.wav", wav() if data is None else data, "audio/wav")}
    return httpx.post(f"{gateway.v1}/audio/transcriptions", files=files, data={"model": MODEL, **fields}, timeout=30)


def test_the_sdk_gets_text_and_usage(client: OpenAI) -> None:
    answer = client.audio.transcriptions.create(model=MODEL, file=("a.wav", wav()), language="en", temperature=0)
    assert "I tap it" in answer.text
    assert answer.usage is not None
    assert answer.usage.type == "tokens"


def test_the_sdk_streams_the_same_text(gateway: Gateway, client: OpenAI) -> None:
    events = list(client.audio.transcriptions.create(model=MODEL, file=("a.wav", wav()), stream=True))
    assert [event.type for event in events] == ["transcript.text.delta", "transcript.text.done"]
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == json.loads(ask(gateway).text)["text"]


def test_text_is_plain(gateway: Gateway) -> None:
    response = ask(gateway, response_format="text")
    assert response.headers["content-type"].startswith("text/plain")
    assert response.text == ask(gateway).json()["text"] + "\n"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": ""}, "model"),
        ({"response_format": "verbose_json"}, "response_format"),
        ({"response_format": "srt"}, "response_format"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities[]"),
        ({"prompt": "names: WeChat"}, "prompt"),
        ({"keywords[]": "WeChat"}, "keywords[]"),
        ({"known_speaker_names[]": "me"}, "known_speaker_names[]"),
        ({"include[]": "logprobs"}, "include[]"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": "0.5"}, "temperature"),
        ({"stream": "maybe"}, "stream"),
    ],
)
def test_what_cannot_be_given_is_refused_by_field(gateway: Gateway, fields: dict[str, str], param: str) -> None:
    assert refusal(ask(gateway, **fields), 400)["param"] == param


@pytest.mark.parametrize(
    "fields", [{"languages[]": "en"}, {"chunking_strategy": "auto"}, {"temperature": "0.00"}, {"temperature": ""}]
)
def test_what_changes_nothing_is_taken(gateway: Gateway, fields: dict[str, str]) -> None:
    before = gateway.metric("autoglm_gateway_unknown_fields_total")
    assert ask(gateway, **fields).status_code == 200
    assert gateway.metric("autoglm_gateway_unknown_fields_total") == before


def test_a_missing_file_is_refused(gateway: Gateway) -> None:
    files: Any = {"model": (None, MODEL)}
    response = httpx.post(f"{gateway.v1}/audio/transcriptions", files=files)
    assert refusal(response, 400)["param"] == "file"


def test_what_is_no_sound_is_refused(gateway: Gateway) -> None:
    error = refusal(ask(gateway, b"not a sound"), 400)
    assert (error["code"], error["param"]) == ("invalid_audio", "file")


def test_a_file_above_25_mb_is_too_large(gateway: Gateway) -> None:
    refusal(ask(gateway, bytes(MAX_FILE_BYTES + 1)), 413)


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data", "text/plain; boundary=a", ""])
def test_another_content_type_is_refused(gateway: Gateway, content_type: str) -> None:
    response = httpx.post(
        f"{gateway.v1}/audio/transcriptions",
        content=b"{}",
        headers={"content-type": content_type} if content_type else {},
    )
    assert refusal(response, 400)["code"] == "invalid_multipart"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--a",
        b"--a--\r\n",
        b"--a\r\nnonsense\r\n\r\n--a--\r\n",
        b'--a\r\ncontent-disposition: form-data; name="\xff"\r\n\r\nx\r\n--a--\r\n',
        b'--a\r\ncontent-disposition: form-data; name="x"\r\n\r\n\xff\r\n--a--\r\n',
        b'--a\r\ncontent-disposition: form-data; name="x"\r\n\r\n1\r\n' * 70 + b"--a--\r\n",
    ],
)
def test_a_damaged_form_never_breaks_the_parser(body: bytes) -> None:
    with contextlib.suppress(InvalidRequestError):
        assert parse_form(body, "multipart/form-data; boundary=a").files == {}

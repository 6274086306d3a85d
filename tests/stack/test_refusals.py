"""Bad input: a 4xx in the OpenAI shape that names the field, and a server that goes on as before."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import httpx
import pytest
from tests.stack.conftest import EXAMPLES, MODEL, Server, audio_part

pytestmark = pytest.mark.triton

HELLO = [{"role": "user", "content": "Hi"}]


def png_url(data: bytes) -> list[dict[str, Any]]:
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    return [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "tap"}]}
    ]


def header_of_a_huge_png() -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


BAD = {
    "malformed JSON": (b'{"model": ', 400, None),
    "empty messages": ({"messages": []}, 400, "messages"),
    "unknown model": ({"model": "gpt-9", "messages": HELLO}, 404, "model"),
    "bad base64": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,@@@"}}]}
            ]
        },
        400,
        "messages[0].content[0].image_url.url",
    ),
    "truncated PNG": (
        {"messages": png_url((EXAMPLES / "home.png").read_bytes()[:2000])},
        400,
        "messages[0].content[0]",
    ),
    "huge PNG": ({"messages": png_url(header_of_a_huge_png())}, 400, "messages[0].content[0]"),
    "text as WAV": (
        {"messages": [{"role": "user", "content": [audio_part(b"this is no sound at all, only text")]}]},
        400,
        "messages[0].content[0]",
    ),
    "temperature": ({"messages": HELLO, "temperature": 2.1}, 400, "temperature"),
    "top_p": ({"messages": HELLO, "top_p": 1.1}, 400, "top_p"),
    "top_k": ({"messages": HELLO, "top_k": "many"}, 400, "top_k"),
    "penalty": ({"messages": HELLO, "frequency_penalty": -3}, 400, "frequency_penalty"),
    "max_tokens": ({"messages": HELLO, "max_tokens": 0}, 400, "max_tokens"),
    "depth 7": ({"messages": HELLO, "depth": 7}, 400, "depth"),
    "exit": ({"messages": HELLO, "exit": "early"}, 400, "exit"),
    "lossless at a depth": ({"messages": HELLO, "exit": "lossless", "depth": 6}, 400, "exit"),
    "too long": ({"messages": [{"role": "user", "content": "open the settings and " * 9000}]}, 400, "messages"),
}


@pytest.mark.parametrize(("body", "status", "param"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_and_the_next_request_is_answered(
    server: Server, body: bytes | dict[str, Any], status: int, param: str | None
) -> None:
    url = f"{server.http_url}/v1/chat/completions"
    if isinstance(body, bytes):
        answer = httpx.post(url, content=body, headers={"content-type": "application/json"}, timeout=60)
    else:
        answer = httpx.post(url, json={"model": MODEL, **body}, timeout=60)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    if param is not None:
        assert error["param"].startswith(param)
    assert server.chat("Go back", max_tokens=8).status_code == 200


def test_a_prompt_beyond_the_context_says_both_counts(server: Server) -> None:
    """Check 8."""
    error = server.chat("open the settings and " * 9000).json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "16384" in error["message"].replace(",", "")

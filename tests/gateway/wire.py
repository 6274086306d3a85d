"""Small words for the gateway's tests: ask, stream, media."""

from __future__ import annotations

import base64
import io
import json
import struct
import wave
import zlib
from collections.abc import Mapping
from typing import Any

import httpx
from PIL import Image
from tests.gateway.processes import MODEL, Gateway

Json = dict[str, Any]


def chat_body(content: Any = "Hi", **fields: Any) -> Json:
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], **fields}


def post(gateway: Gateway, body: Any, path: str = "/v1/chat/completions", **options: Any) -> httpx.Response:
    return httpx.post(f"http://{gateway.http}{path}", json=body, timeout=30, **options)


def refusal(response: httpx.Response, status: int) -> Json:
    """The error object of a refusal, after checking OpenAI's envelope."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] is None or isinstance(error["code"], str)
    assert "Traceback" not in response.text
    assert ".py" not in response.text
    return error


def stream_lines(gateway: Gateway, body: Json) -> list[str]:
    with httpx.stream("POST", f"{gateway.v1}/chat/completions", json={**body, "stream": True}, timeout=30) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        return [line.removeprefix("data: ") for line in response.iter_lines() if line]


def stream_chunks(gateway: Gateway, body: Json) -> list[Json]:
    """Every chunk of a stream that ends well."""
    lines = stream_lines(gateway, body)
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def delta_text(chunks: list[Json], key: str = "content", index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get(key, "") for choice in choices)


def png(width: int = 8, height: int = 8) -> bytes:
    return _encoded("PNG", width, height)


def jpeg(width: int = 8, height: int = 8) -> bytes:
    return _encoded("JPEG", width, height)


def webp(width: int = 8, height: int = 8) -> bytes:
    return _encoded("WEBP", width, height)


def gif() -> bytes:
    return _encoded("GIF", 8, 8)


def png_claiming(width: int, height: int) -> bytes:
    """A well-formed PNG whose header claims a size that its data do not have."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def wav(seconds: float = 0.1) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(b"\0\0" * int(16000 * seconds))
    return buffer.getvalue()


def mp3() -> bytes:
    """One silent frame of MPEG-1 layer III, 128 kbit/s, 44.1 kHz."""
    return b"\xff\xfb\x90\x00" + bytes(413)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def image_part(data: bytes, media_type: str = "image/png") -> Json:
    return {"type": "image_url", "image_url": {"url": f"data:{media_type};base64,{b64(data)}"}}


def audio_part(data: bytes, format: str = "wav") -> Json:
    return {"type": "input_audio", "input_audio": {"data": b64(data), "format": format}}


def text_part(text: str) -> Json:
    return {"type": "text", "text": text}


def usage_of(response: httpx.Response) -> Mapping[str, Any]:
    assert response.status_code == 200, response.text
    return response.json()["usage"]


def _encoded(format: str, width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(buffer, format)
    return buffer.getvalue()

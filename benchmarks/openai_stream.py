"""A light OpenAI client that only takes times, so that the load generator is not what is measured.

No benchmark by itself: load.py and soak.py ask with it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

Json = dict[str, Any]

_MAX_LINE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One request's times, in seconds from `due_s` (a monotonic time). `error` empty: a whole answer came."""

    due_s: float
    ttft_s: float = 0.0
    """To the first generated text; of an answer that is not streamed, to its end."""
    e2e_s: float = 0.0
    gaps_s: tuple[float, ...] = ()
    """Between one piece of text and the next."""
    tokens: int = 0
    prompt_tokens: int = 0
    error: str = ""

    @property
    def itl_s(self) -> float:
        """Mean time of a token after the first piece (vLLM's TPOT)."""
        return (self.e2e_s - self.ttft_s) / (self.tokens - 1) if self.tokens > 1 and self.gaps_s else 0.0


class OpenAIEndpoint:
    """POSTs to one path of a server over kept connections. To be closed at the end."""

    def __init__(self, url: str, *, path: str = "/v1/chat/completions", api_key: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise ValueError(f"{url!r} is no http or https URL")
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        prefix = parts.path.rstrip("/").removesuffix("/v1")
        self._head = f"POST {prefix}{path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
        self._head += "cache-control: no-store\r\n"  # answers are to come from the model
        if api_key is not None:
            self._head += f"authorization: Bearer {api_key}\r\n"
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, body: Json, *, due_s: float | None = None) -> Answered:
        """One request; `due_s`: when it should have been sent, now without it. Never raises for a refusal."""
        due_s = time.monotonic() if due_s is None else due_s
        try:
            return await (self._stream(body, due_s) if body.get("stream") else self._whole(body, due_s))
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            return Answered(due_s=due_s, error=type(error).__name__)

    async def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
        for _, writer in self._idle:
            await writer.wait_closed()
        self._idle.clear()

    async def _whole(self, body: Json, due_s: float) -> Answered:
        async with aclosing(self._post(body)) as pieces:
            status = int(await anext(pieces))
            answer = json.loads(b"".join([piece async for piece in pieces]))
        if status != 200:
            return Answered(due_s=due_s, error=_code(answer, status))
        e2e_s = time.monotonic() - due_s
        usage = answer["usage"]
        return Answered(
            due_s=due_s,
            ttft_s=e2e_s,
            e2e_s=e2e_s,
            tokens=usage["completion_tokens"],
            prompt_tokens=usage["prompt_tokens"],
        )

    async def _stream(self, body: Json, due_s: float) -> Answered:
        """Reads of each event only what is needed: whether it holds text, an error or the usage."""
        moments_s: list[float] = []
        usage: Json = {}
        is_over = False
        rest = b""
        async with aclosing(self._post(body)) as pieces:
            status = int(await anext(pieces))
            if status != 200:
                answer = json.loads(b"".join([piece async for piece in pieces]))
                return Answered(due_s=due_s, error=_code(answer, status))
            async for piece in pieces:
                *events, rest = (rest + piece).split(b"\n\n")
                has_text = False
                for event in events:
                    data = event.removeprefix(b"data: ")
                    if data == b"[DONE]":
                        is_over = True
                    elif data.startswith(b'{"error"'):
                        return Answered(due_s=due_s, error=_code(json.loads(data), 200))
                    elif b'"usage":{' in data:
                        usage = json.loads(data)["usage"]
                    elif moments_s or _has_text(data):
                        has_text = has_text or b'"delta":{}' not in data
                if has_text:
                    moments_s.append(time.monotonic())
        if not is_over or not moments_s:
            return Answered(due_s=due_s, error="cut_off")
        return Answered(
            due_s=due_s,
            ttft_s=moments_s[0] - due_s,
            e2e_s=moments_s[-1] - due_s,
            gaps_s=tuple(later - earlier for earlier, later in itertools.pairwise(moments_s)),
            tokens=usage.get("completion_tokens", len(moments_s)),
            prompt_tokens=usage.get("prompt_tokens", 0),
        )

    async def _post(self, body: Json) -> AsyncGenerator[bytes, None]:
        """The status in digits, then the pieces of the body. Raises OSError, IncompleteReadError or ValueError."""
        reader, writer = self._idle.pop() if self._idle else await self._connect()
        is_reusable = False
        try:
            data = json.dumps(body).encode()
            writer.write(f"{self._head}content-length: {len(data)}\r\n\r\n".encode() + data)
            await writer.drain()
            status, headers = await _read_head(reader)
            yield status
            if headers.get(b"transfer-encoding") == b"chunked":
                while size := int(await reader.readline(), 16):
                    yield (await reader.readexactly(size + 2))[:-2]
                await reader.readline()
            else:
                yield await reader.readexactly(int(headers.get(b"content-length", b"0")))
            is_reusable = headers.get(b"connection") != b"close"
        finally:
            if is_reusable:
                self._idle.append((reader, writer))
            else:
                writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self._host, self._port, ssl=self._ssl, limit=_MAX_LINE_BYTES)


async def _read_head(reader: asyncio.StreamReader) -> tuple[bytes, dict[bytes, bytes]]:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.rstrip().split(b"\r\n")
    named = (line.split(b":", 1) for line in lines)
    return first.split(b" ")[1], {name.lower(): value.strip().lower() for name, value in named}


def _has_text(data: bytes) -> bool:
    delta: Json = json.loads(data)["choices"][0].get("delta", {})
    return any(delta.get(key) for key in ("content", "reasoning_content", "reasoning", "tool_calls"))


def _code(answer: Json, status: int) -> str:
    error: Any = answer.get("error")
    return str(error.get("code") or status) if isinstance(error, dict) else str(status)

"""A small server on a real socket that speaks OpenAI's chat API exactly: the client meets nothing but the wire."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

ANSWER = ("<think>The row is", " visible.</think><answer>", 'do(action="Tap", element=[500,250])')
GRAPH = {
    "enabled": True,
    "depth": 24,
    "num_layers": 24,
    "exit_mode": "fixed",
    "reason": "auto",
    "encoders_run": ["vision"],
    "encoders_skipped": ["speech"],
    "embedding_cache_hits": 0,
}
USAGE = {
    "prompt_tokens": 300,
    "completion_tokens": 21,
    "total_tokens": 321,
    "prompt_tokens_details": {"text_tokens": 44, "image_tokens": 256, "audio_tokens": 0, "cached_tokens": 12},
    "completion_tokens_details": {"reasoning_tokens": 5},
}


@dataclass
class OpenAIServer:
    """Set the knobs, then call; `bodies` are the requests it has seen."""

    url: str = ""
    deltas: tuple[str, ...] = ANSWER
    reasoning: tuple[str, ...] = ()
    token_layers: int | None = None
    """Say of each delta that it was one token of so many layers."""
    finish_reason: str = "stop"
    refusal: tuple[int, dict[str, Any], dict[str, str]] | None = None
    """Status, body and headers instead of a stream."""
    error_after_deltas: dict[str, Any] | None = None
    raw_stream: bytes | None = None
    stays_open: bool = False
    """After the deltas nothing more comes, until the client goes."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    api_keys: list[str | None] = field(default_factory=list)
    client_left: threading.Event = field(default_factory=threading.Event)

    async def models(self, request: Request) -> Response:
        rows = [{"id": name, "object": "model", "created": 0, "owned_by": "x"} for name in ("first", "second")]
        return JSONResponse({"object": "list", "data": rows})

    async def chat(self, request: Request) -> Response:
        self.bodies.append(await request.json())
        self.api_keys.append(request.headers.get("authorization"))
        if self.refusal is not None:
            status, body, headers = self.refusal
            return JSONResponse(body, status, headers)
        return StreamingResponse(self._stream(), media_type="text/event-stream")

    async def _stream(self) -> AsyncIterator[bytes]:
        if self.raw_stream is not None:
            yield self.raw_stream
            return
        plan = {} if self.token_layers is None else {"dynamic_graph": GRAPH}
        yield _chunk({"role": "assistant", "content": ""}, **plan)
        for text in self.reasoning:
            yield _chunk({"reasoning_content": text})
        for text in self.deltas:
            layers = None if self.token_layers is None else [{"text": text, "layers": self.token_layers}]
            yield _chunk({"content": text}, token_layers=layers)
        if self.stays_open:
            try:
                await asyncio.Event().wait()
            finally:
                self.client_left.set()
        if self.error_after_deltas is not None:
            yield _data({"error": self.error_after_deltas})
            return
        yield _chunk({}, finish_reason=self.finish_reason, dynamic_graph=GRAPH)
        yield _data({**_HEAD, "choices": [], "usage": USAGE})
        yield b"data: [DONE]\n\n"


_HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "first"}


def _chunk(delta: dict[str, Any], *, finish_reason: str | None = None, token_layers: Any = None, **extra: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    if token_layers is not None:
        choice["token_layers"] = token_layers
    return _data({**_HEAD, "choices": [choice], "usage": None, **extra})


def _data(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


@contextmanager
def serve_openai() -> Iterator[OpenAIServer]:
    server = OpenAIServer()
    app = Starlette(
        routes=[
            Route("/v1/models", server.models),
            Route("/v1/chat/completions", server.chat, methods=["POST"]),
        ]
    )
    config = uvicorn.Config(app, log_level="critical", ws="none", lifespan="off", timeout_graceful_shutdown=1)
    web = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # from here on the kernel takes connections: nobody has to wait for the thread
        server.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=web.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield server
        finally:
            web.should_exit = True
            thread.join()

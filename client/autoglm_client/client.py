"""The async client: a request out, typed events back. The sync client wraps this one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, cast

import httpx

from autoglm_client._chunks import ChunkReader
from autoglm_client._sse import SSEDecoder
from autoglm_client.errors import ConnectionFailedError, StreamBrokenError, as_object, error_from_response
from autoglm_client.events import ClientEvent, Finished
from autoglm_client.media import AudioSource, Images, audio_part, image_parts, user_content
from autoglm_client.reply import ActionReply, ReplyBuilder
from autoglm_protocol.errors import DeadlineError, UnavailableError

CONNECT_TIMEOUT_S = 10.0

ChatMessage = Mapping[str, Any]
"""A message as the OpenAI API spells it: {"role": ..., "content": ...}."""


class AsyncAutoGLM:
    """One server. Safe for concurrent requests of one event loop; close it, or use it as an async context manager.

    `model` None takes the first one that the server lists, asked once. `timeout_s` is the longest wait for the next
    byte, not for the whole answer. Errors are those of `autoglm_protocol.errors` and `autoglm_client.errors`; a file
    that cannot be sent is a MediaError.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        *,
        model: str | None = None,
        timeout_s: float = 120.0,
    ) -> None:
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        self._model = model
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(
            headers={} if api_key is None else {"Authorization": f"Bearer {api_key}"},
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
            # A stream holds its connection: the default of 100 would make request 101 wait without a word.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
        )

    async def stream(
        self,
        instruction: str = "",
        *,
        image: Images | None = None,
        audio: AudioSource | None = None,
        history: Sequence[ChatMessage] = (),
        depth: int | str | None = None,
        **sampling: Any,
    ) -> AsyncGenerator[ClientEvent, None]:
        """Deltas as they come, then Finished. Closing the generator (`aclosing`, or dropping it) cancels the request.

        `image` and `audio` are paths or files' bytes (`image` also Pillow images, and several). `history` are the
        messages before this one. `depth` and `sampling` go into the request body as they are: temperature,
        max_tokens, seed, stop, return_reasoning, exit, return_token_layers, ...
        """
        if sampling.get("n", 1) != 1:
            raise ValueError("this client reads one answer a request: send n requests instead of n choices")
        parts = image_parts(image)
        sound = None if audio is None else audio_part(audio)
        if not instruction and not parts and sound is None:
            raise ValueError("a request needs an instruction, an image or audio")
        message = {"role": "user", "content": user_content(instruction, images=parts, audio=sound)}
        body: dict[str, Any] = {
            "model": await self.model_name(),
            "messages": [*history, message],
            "stream": True,
            "stream_options": {"include_usage": True},
            **sampling,
        }
        if depth is not None:
            body["depth"] = depth
        async with aclosing(self._events(body)) as events:
            async for event in events:
                yield event

    async def act(
        self,
        instruction: str = "",
        *,
        image: Images | None = None,
        audio: AudioSource | None = None,
        history: Sequence[ChatMessage] = (),
        depth: int | str | None = None,
        **sampling: Any,
    ) -> ActionReply:
        """The whole answer with its action parsed; arguments and errors are those of `stream`."""
        await self.model_name()  # asked before the clock starts
        builder = ReplyBuilder()
        events = self.stream(instruction, image=image, audio=audio, history=history, depth=depth, **sampling)
        async with aclosing(events):
            async for event in events:
                builder.add(event)
        return builder.reply

    async def models(self) -> tuple[str, ...]:
        """Names that the server answers to, in its order."""
        try:
            response = await self._http.get(f"{self.base_url}/v1/models")
        except httpx.TransportError as error:
            raise self._transport_error(error) from error
        if response.status_code != 200:
            raise error_from_response(response.status_code, response.content, response.headers)
        try:
            rows = as_object(response.json()).get("data")
        except ValueError as error:
            raise StreamBrokenError(f"{self.base_url} does not answer like an OpenAI-compatible server") from error
        return tuple(str(as_object(row).get("id")) for row in cast("list[Any]", rows or []))

    async def model_name(self) -> str:
        """The model that requests go to."""
        if self._model is None:
            names = await self.models()
            if not names:
                raise UnavailableError(f"{self.base_url} serves no model")
            self._model = names[0]
        return self._model

    async def close(self) -> None:
        """Ends every open stream."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncAutoGLM:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _events(self, body: dict[str, Any]) -> AsyncGenerator[ClientEvent, None]:
        reader, decoder = ChunkReader(), SSEDecoder()
        try:
            async with self._http.stream("POST", f"{self.base_url}/v1/chat/completions", json=body) as response:
                if response.status_code != 200:
                    raise error_from_response(response.status_code, await response.aread(), response.headers)
                async for chunk in response.aiter_bytes():
                    for sse in decoder.feed(chunk):
                        for event in reader.read(sse.data):
                            yield event
                            if isinstance(event, Finished):
                                return
        except httpx.TransportError as error:
            raise self._transport_error(error) from error
        raise StreamBrokenError("the server ended the stream before the answer was complete")

    def _transport_error(self, error: httpx.TransportError) -> UnavailableError | DeadlineError:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.UnsupportedProtocol):
            return ConnectionFailedError(f"no server answers at {self.base_url} ({error or type(error).__name__})")
        if isinstance(error, httpx.TimeoutException):
            return DeadlineError(f"{self.base_url} sent nothing for {self._timeout_s:g} s")
        return StreamBrokenError(f"the connection to {self.base_url} broke ({error or type(error).__name__})")

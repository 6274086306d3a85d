"""The same client without async: each call runs on one background event loop. Nothing is implemented twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator, Sequence
from contextlib import aclosing
from queue import SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

from autoglm_client.client import AsyncAutoGLM, ChatMessage
from autoglm_client.events import ClientEvent
from autoglm_client.media import AudioSource, Images
from autoglm_client.reply import ActionReply

T = TypeVar("T")


class AutoGLM:
    """As AsyncAutoGLM, from any number of threads. Close it, or use it as a context manager."""

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        *,
        model: str | None = None,
        timeout_s: float = 120.0,
    ) -> None:
        self._client = AsyncAutoGLM(base_url, api_key, model=model, timeout_s=timeout_s)
        self._loop = _LoopThread()

    def stream(
        self,
        instruction: str = "",
        *,
        image: Images | None = None,
        audio: AudioSource | None = None,
        history: Sequence[ChatMessage] = (),
        depth: int | str | None = None,
        **sampling: Any,
    ) -> Generator[ClientEvent, None, None]:
        """As AsyncAutoGLM.stream. Closing the generator, or leaving it by an exception, cancels the request."""
        return self._loop.iterate(
            self._client.stream(instruction, image=image, audio=audio, history=history, depth=depth, **sampling)
        )

    def act(
        self,
        instruction: str = "",
        *,
        image: Images | None = None,
        audio: AudioSource | None = None,
        history: Sequence[ChatMessage] = (),
        depth: int | str | None = None,
        **sampling: Any,
    ) -> ActionReply:
        return self._loop.run(
            self._client.act(instruction, image=image, audio=audio, history=history, depth=depth, **sampling)
        )

    def models(self) -> tuple[str, ...]:
        return self._loop.run(self._client.models())

    def model_name(self) -> str:
        return self._loop.run(self._client.model_name())

    def close(self) -> None:
        """Ends every open stream; a second call does nothing."""
        if self._loop.is_running:
            self._loop.run(self._client.close())
            self._loop.stop()

    def __enter__(self) -> AutoGLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _End:
    pass


class _LoopThread:
    """An event loop on a daemon thread of its own, started by the first call."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="autoglm-client", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`; an exception here, such as Ctrl-C, cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, items: AsyncGenerator[T, None]) -> Generator[T, None, None]:
        queue: SimpleQueue[T | Exception | _End] = SimpleQueue()

        async def pump() -> None:
            try:
                async with aclosing(items):
                    async for item in items:
                        queue.put(item)
            except Exception as error:  # raised again in the caller's thread
                queue.put(error)

        async def start() -> asyncio.Task[None]:
            task = asyncio.create_task(pump())
            # A callback, because a task cancelled before its first step runs no `finally` of its own.
            task.add_done_callback(lambda _: queue.put(_End()))
            return task

        task = self.run(start())
        item: T | Exception | _End | None = None
        try:
            while not isinstance(item := queue.get(), _End):
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self._loop.call_soon_threadsafe(task.cancel)
            while not isinstance(item, _End):
                item = queue.get()

    def stop(self) -> None:
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

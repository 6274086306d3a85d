"""Streamed chats at a steady rate, each on a connection of its own, and what became of every one."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from benchmarks.openai_stream import Answered, OpenAIEndpoint

_BROKEN = {"cut_off", "ConnectionResetError", "IncompleteReadError"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Streams that began in one phase. `broken`: began to answer and did not end well; `refused`: never began."""

    phase: str
    seconds: float
    whole: int
    broken: int
    refused: int
    tokens: int
    longest_s: float
    errors: dict[str, int]

    def __str__(self) -> str:
        return (
            f"{self.phase:<34} {self.seconds:6.0f} s  {self.whole + self.broken + self.refused:5d} streams "
            f"{self.whole:5d} whole {self.broken:3d} broken {self.refused:3d} refused "
            f"{self.tokens:7d} tokens, longest {self.longest_s:5.1f} s {self.errors or ''}"
        )


@dataclass(slots=True, kw_only=True)
class SteadyStreams:
    """Asks every `interval_s` from a thread of its own; every `long_every`th answer is `long_tokens` long.

    No two questions are the same: a gateway's cache of answers answers none of them.
    """

    url: str
    model: str
    interval_s: float
    long_every: int
    long_tokens: int
    _answers: list[Future[Answered]] = field(default_factory=list)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> SteadyStreams:
        for target in (self._loop.run_forever, self._ask_steadily):
            thread = threading.Thread(target=target, daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._threads[1].join()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._threads[0].join()
        self._loop.close()

    def tally(self, phase: str, seconds: float) -> Tally:
        """Takes the streams that have begun since the last tally, waits for their ends and counts them."""
        answers, self._answers = self._answers, []
        ended = [answer.result() for answer in answers]
        errors = Counter(answered.error for answered in ended if answered.error)
        broken = sum(count for error, count in errors.items() if error in _BROKEN)
        return Tally(
            phase=phase,
            seconds=seconds,
            whole=len(ended) - errors.total(),
            broken=broken,
            refused=errors.total() - broken,
            tokens=sum(answered.tokens for answered in ended),
            longest_s=max((answered.e2e_s for answered in ended), default=0.0),
            errors=dict(errors),
        )

    def _ask_steadily(self) -> None:
        number = 0
        while not self._stopping.wait(self.interval_s):
            number += 1
            length = {"max_tokens": 64}
            if number % self.long_every == 0:
                length = {"max_tokens": self.long_tokens, "ignore_eos": True}
            body = {
                "model": self.model,
                "messages": [{"role": "user", "content": f"Call {number} on WeChat"}],
                "stream": True,
                "stream_options": {"include_usage": True},
                "temperature": 0,
                **length,
            }
            self._answers.append(asyncio.run_coroutine_threadsafe(self._one(body), self._loop))

    async def _one(self, body: dict[str, Any]) -> Answered:
        endpoint = OpenAIEndpoint(self.url)
        try:
            return await endpoint.ask(body)
        finally:
            await endpoint.close()

"""Streamed chats, each on a connection of its own, and what became of every one."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
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
    """Asks for something short every `interval_s`, from a thread of its own, and for long answers when told to."""

    url: str
    model: str
    interval_s: float
    _numbers: Iterator[int] = field(default_factory=itertools.count)
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

    def begin_long(self, count: int, *, tokens: int) -> None:
        """Asks for `count` answers of that many tokens at once; without drafts, which make some of them short-lived."""
        for _ in range(count):
            self._begin({"max_tokens": tokens, "ignore_eos": True, "depth": "full", "exit": "fixed"})

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
        while not self._stopping.wait(self.interval_s):
            self._begin({"max_tokens": 64})

    def _begin(self, length: dict[str, Any]) -> None:
        body = {
            "model": self.model,
            # no two questions are the same: a gateway's cache of answers answers none of them
            "messages": [{"role": "user", "content": f"Call {next(self._numbers)} on WeChat"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0,
            **length,
        }
        self._answers.append(asyncio.run_coroutine_threadsafe(self._one(body), self._loop))

    async def _one(self, body: dict[str, Any]) -> Answered:
        endpoint = OpenAIEndpoint(self.url)
        try:
            answered = await endpoint.ask(body)
            # its last tokens may be such as have no text
            return replace(answered, e2e_s=time.monotonic() - answered.due_s)
        finally:
            await endpoint.close()

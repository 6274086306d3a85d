"""Streamed chats, each on a connection of its own, and what became of every one."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.openai_stream import Answered, OpenAIEndpoint

NO_END = "no_end"
ANSWER_LIMIT_S = 600.0
"""Longer than any drain: what has not ended by then never will."""
# ValueError: the connection ended between two pieces of the body
_BROKEN = {"cut_off", "ConnectionResetError", "IncompleteReadError", "ValueError", NO_END}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Streams that began in one phase. `broken`: their connection ended early, or never; `refused`: an error came."""

    phase: str
    started_s: float
    seconds: float
    answers: Sequence[Answered]

    @property
    def failed(self) -> Sequence[Answered]:
        return [answered for answered in self.answers if answered.error]

    @property
    def whole(self) -> int:
        return len(self.answers) - len(self.failed)

    @property
    def broken(self) -> int:
        return sum(answered.error in _BROKEN for answered in self.failed)

    @property
    def refused(self) -> int:
        return len(self.failed) - self.broken

    def __str__(self) -> str:
        tokens = sum(answered.tokens for answered in self.answers)
        longest_s = max((answered.e2e_s for answered in self.answers), default=0.0)
        return (
            f"{self.phase:<34} {self.seconds:6.0f} s  {len(self.answers):5d} streams "
            f"{self.whole:5d} whole {self.broken:3d} broken {self.refused:3d} refused "
            f"{tokens:7d} tokens, longest {longest_s:5.1f} s"
        )

    @property
    def errors(self) -> str:
        """A line for each stream that failed."""
        return "\n".join(
            f"  {answered.error}: asked after {answered.due_s - self.started_s:.1f} s, over {answered.e2e_s:.1f} s on"
            for answered in self.failed
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
        for answer in self._answers:
            answer.cancel()
        asyncio.run_coroutine_threadsafe(_all_ended(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._threads[0].join()
        self._loop.close()

    def begin_long(self, count: int, *, tokens: int) -> None:
        """Asks for `count` answers of that many tokens at once."""
        self._answers += [self._ask(_long(tokens)) for _ in range(count)]

    def time_long(self, count: int, *, tokens: int) -> float:
        """Seconds that the shortest of `count` such answers takes; no tally has them. Raises AssertionError."""
        answers = [answer.result() for answer in [self._ask(_long(tokens)) for _ in range(count)]]
        assert not any(answered.error for answered in answers), Counter(answered.error for answered in answers)
        return min(answered.e2e_s for answered in answers)

    def tally(self, phase: str, started_s: float) -> Tally:
        """Takes the streams that have begun since the last tally and waits for their ends."""
        seconds = time.monotonic() - started_s
        answers, self._answers = self._answers, []
        ended = [answer.result() for answer in answers]
        return Tally(phase=phase, started_s=started_s, seconds=seconds, answers=ended)

    def _ask_steadily(self) -> None:
        while not self._stopping.wait(self.interval_s):
            self._answers.append(self._ask({"max_tokens": 64}))

    def _ask(self, length: dict[str, Any]) -> Future[Answered]:
        body = {
            "model": self.model,
            # no two questions are the same: a gateway's cache of answers answers none of them
            "messages": [{"role": "user", "content": f"Call {next(self._numbers)} on WeChat"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0,
            **length,
        }
        return asyncio.run_coroutine_threadsafe(self._one(body), self._loop)

    async def _one(self, body: dict[str, Any]) -> Answered:
        endpoint = OpenAIEndpoint(self.url)
        due_s = time.monotonic()
        try:
            answered = await asyncio.wait_for(endpoint.ask(body, due_s=due_s), ANSWER_LIMIT_S)
        except asyncio.TimeoutError:
            answered = Answered(due_s=due_s, error=NO_END)
        finally:
            await endpoint.close()
        # its last tokens may be such as have no text
        return replace(answered, e2e_s=time.monotonic() - due_s)


def _long(tokens: int) -> dict[str, Any]:
    """Without drafts, which make some of them short-lived."""
    return {"max_tokens": tokens, "ignore_eos": True, "depth": "full", "exit": "fixed"}


async def _all_ended() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)

"""Whether a server that says it is ready answers at all: Triton calls a model ready whose process hangs.

Silence alone proves nothing, since a long prompt is silent too. A server that was asked something and has said nothing
for long, or that could not serve a request, is asked for one token. While it owes that answer it gets no work.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from autoglm_gateway.deadline import within
from autoglm_gateway.option import option
from autoglm_protocol.chat import ChatOptions, ChatRequest, Message, Role, TextPart
from autoglm_protocol.errors import AutoglmError, OverloadedError, UnavailableError
from autoglm_protocol.events import Failed, StreamEvent
from autoglm_protocol.sampling import SamplingParams

_log = logging.getLogger(__name__)
_AT_ONCE_S = 1.0
"""A server that is well answers the probe within so long: the health check waits for it, others' checks with it."""
_FIRST = -(1 << 30)
"""The decoder runs the probe before everything else, so that a full server is not taken for one that hangs."""


class Watched(Protocol):
    """What is asked of a server in doubt (TritonBackend)."""

    def generate(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]: ...

    def give_up(self, error: AutoglmError) -> None:
        """End every request in flight there in Failed(error)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HangLimits:
    # The decoder computes prompts in chunks between other tokens, so silence of all streams for a minute means one very
    # long step, or a picture that an encoder on a CPU takes a minute for; the probe tells those from a hang.
    hang_after_s: float = option(
        60.0, "a Triton with requests and without any event for so long is asked for one token; 0 never asks"
    )
    hang_probe_s: float = option(30.0, "without that token after so long, it hangs: its requests fail or go elsewhere")

    def __post_init__(self) -> None:
        if self.hang_after_s < 0 or self.hang_probe_s <= 0:
            raise ValueError("--hang-after-s must be at least 0, --hang-probe-s above 0")


def probe_request() -> ChatRequest:
    """One token of a short text, through the same models as any chat."""
    return ChatRequest(
        request_id=f"probe-{uuid.uuid4().hex}",
        model="",
        messages=(Message(role=Role.USER, parts=(TextPart(text="Hi"),)),),
        sampling=SamplingParams(temperature=0.0, max_tokens=1),
        options=ChatOptions(priority=_FIRST),
    )


class HangWatch:
    """Of one server. `asked`, `heard` and `rested` follow its requests; `look` belongs to the health check."""

    def __init__(self, address: str, server: Watched, limits: HangLimits, clock: Callable[[], float]) -> None:
        self.in_doubt = False
        """No work goes there before the next probe is answered."""
        self.is_hung = False
        """A probe was not answered, although the server says it is ready."""
        self._address = address
        self._server = server
        self._limits = limits
        self._clock = clock
        self._silent_since_s: float | None = None
        """None while nothing is owed."""
        self._num_heard = 0
        self._probe: asyncio.Task[None] | None = None

    def asked(self) -> None:
        # Not anew for each: callers that give up and ask again must not hide the silence.
        if self._silent_since_s is None:
            self._silent_since_s = self._clock()

    def heard(self) -> None:
        self._num_heard += 1
        self._silent_since_s = self._clock()

    def rested(self) -> None:
        """Nothing is in flight, and the last request was answered."""
        self._silent_since_s = None

    def suspect(self) -> None:
        """A request found it unavailable."""
        self.in_doubt = self._limits.hang_after_s > 0

    async def look(self) -> None:
        """Ask for a token where that is due; one that only may hang is used at once if it answers at once."""
        if self._probe is None and (self.in_doubt or self._is_silent(self._limits.hang_after_s)):
            self._probe = asyncio.ensure_future(self._ask())
            if not self.is_hung:
                await asyncio.wait((self._probe,), timeout=_AT_ONCE_S)

    async def close(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait((self._probe,))

    async def _ask(self) -> None:
        num_heard = self._num_heard
        try:
            last = await within(self._one_token(), self._limits.hang_probe_s)
        except asyncio.TimeoutError:
            last = Failed(error=UnavailableError("no answer in time"))
        finally:
            self._probe = None
        error = last.error if isinstance(last, Failed) else None
        if isinstance(error, OverloadedError):
            # It is full. That is no proof of its decoder, which is given as long as the probe would have been.
            is_answered = not self._is_silent(self._limits.hang_after_s + self._limits.hang_probe_s)
        else:
            is_answered = not isinstance(error, UnavailableError)
            if is_answered:
                self.heard()
        if is_answered or (self._num_heard != num_heard and not self.in_doubt):
            self._answers()
        else:
            self._hangs()

    async def _one_token(self) -> StreamEvent:
        async with aclosing(self._server.generate(probe_request())) as events:
            *_, last = [event async for event in events]
        return last

    def _answers(self) -> None:
        if self.is_hung:
            _log.info("Triton answers again", extra={"triton": self._address})
        self.in_doubt = self.is_hung = False

    def _hangs(self) -> None:
        is_silent = self._is_silent(self._limits.hang_after_s)
        if not self.is_hung:
            _log.warning("Triton is ready and does not answer", extra={"triton": self._address, "silent": is_silent})
        self.in_doubt = self.is_hung = True
        if is_silent:
            self._server.give_up(UnavailableError("the model server stopped answering"))

    def _is_silent(self, for_s: float) -> bool:
        return for_s > 0 and self._silent_since_s is not None and self._clock() - self._silent_since_s >= for_s

"""What each API key may still do: requests and tokens per minute as leaky buckets, and requests at once.

A request's tokens are only known at its end: it starts if any are left, and what it took is charged then.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from autoglm_gateway.api_keys import Caller
from autoglm_protocol.errors import OverloadedError

_MINUTE_S = 60.0


class QuotaCounter(Protocol):
    def request(self, caller: Caller | None) -> AbstractAsyncContextManager[None]:
        """Count one request of the caller. Raises OverloadedError (rate_limit_exceeded) when it has none left."""
        ...

    def charge(self, caller: Caller | None, tokens: int) -> None:
        """Take what an answer has used, soon."""
        ...

    async def headers(self, caller: Caller) -> dict[str, str]:
        """OpenAI's x-ratelimit-* headers, for the limits that the caller has."""
        ...


class _Bucket:
    """`limit` units that come back evenly over a minute. May be overdrawn."""

    def __init__(self, limit: int, now_s: float) -> None:
        self.limit = limit
        self._left = float(limit)
        self._updated_s = now_s

    def left(self, now_s: float) -> float:
        self._left = min(self.limit, self._left + (now_s - self._updated_s) * self.limit / _MINUTE_S)
        self._updated_s = now_s
        return self._left

    def take(self, amount: float, now_s: float) -> None:
        self._left = self.left(now_s) - amount

    def until_s(self, wanted: float, now_s: float) -> float:
        """Seconds until `wanted` units are there."""
        return max(0.0, (wanted - self.left(now_s)) * _MINUTE_S / self.limit)


class _Account:
    def __init__(self, caller: Caller, now_s: float) -> None:
        self.caller = caller
        self.running = 0
        self.requests = None if caller.requests_per_min is None else _Bucket(caller.requests_per_min, now_s)
        self.tokens = None if caller.tokens_per_min is None else _Bucket(caller.tokens_per_min, now_s)


class Quotas:
    """This process's own count. See QuotaCounter."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    @asynccontextmanager
    async def request(self, caller: Caller | None) -> AsyncGenerator[None, None]:
        if caller is None:
            yield
            return
        account = self._account(caller)
        now_s = self._clock()
        if caller.max_concurrent is not None and account.running >= caller.max_concurrent:
            raise exceeded(caller, "concurrent", 1.0)
        if account.requests is not None and account.requests.left(now_s) < 1:
            raise exceeded(caller, "requests", account.requests.until_s(1, now_s))
        if account.tokens is not None and account.tokens.left(now_s) <= 0:
            raise exceeded(caller, "tokens", account.tokens.until_s(1, now_s))
        if account.requests is not None:
            account.requests.take(1, now_s)
        account.running += 1
        try:
            yield
        finally:
            account.running -= 1

    def charge(self, caller: Caller | None, tokens: int) -> None:
        if caller is None:
            return
        account = self._account(caller)
        if account.tokens is not None:
            account.tokens.take(tokens, self._clock())

    async def headers(self, caller: Caller) -> dict[str, str]:
        account = self._account(caller)
        now_s = self._clock()
        requests, tokens = account.requests, account.tokens
        return limit_headers(
            caller,
            requests_left=0.0 if requests is None else requests.left(now_s),
            tokens_left=0.0 if tokens is None else tokens.left(now_s),
        )

    def _account(self, caller: Caller) -> _Account:
        account = self._accounts.get(caller.name)
        if account is None or account.caller != caller:
            running = 0 if account is None else account.running
            account = self._accounts[caller.name] = _Account(caller, self._clock())
            account.running = running
        return account


def duration(seconds: float) -> str:
    """OpenAI's spelling: 120ms, 1s, 6m0s."""
    if seconds < 1:
        return f"{round(seconds * 1e3)}ms"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def limit_headers(caller: Caller, *, requests_left: float, tokens_left: float) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, limit, left in (
        ("requests", caller.requests_per_min, requests_left),
        ("tokens", caller.tokens_per_min, tokens_left),
    ):
        if limit is not None:
            headers[f"x-ratelimit-limit-{name}"] = str(limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(max(0, int(left)))
            headers[f"x-ratelimit-reset-{name}"] = duration(max(0.0, (limit - left) * _MINUTE_S / limit))
    return headers


def exceeded(caller: Caller, which: str, retry_after_s: float) -> OverloadedError:
    """`which`: "concurrent", "requests" or "tokens"."""
    message = {
        "concurrent": f"{caller.max_concurrent} requests of this key run already, which is its limit",
        "requests": f"this key may send {caller.requests_per_min} requests a minute",
        "tokens": f"this key may use {caller.tokens_per_min} tokens a minute",
    }[which]
    return OverloadedError(message, code="rate_limit_exceeded", retry_after_s=max(1.0, retry_after_s))

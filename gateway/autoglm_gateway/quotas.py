"""What each API key may still do: requests and tokens per minute as leaky buckets, and requests at once.

A request's tokens are only known at its end: it starts if any are left, and what it took is charged then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from autoglm_gateway.api_keys import Caller
from autoglm_protocol.errors import OverloadedError

_MINUTE_S = 60.0


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
    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    @contextmanager
    def request(self, caller: Caller | None) -> Generator[None, None, None]:
        """Count one request of the caller. Raises OverloadedError (rate_limit_exceeded) when it has none left."""
        if caller is None:
            yield
            return
        account = self._account(caller)
        now_s = self._clock()
        if caller.max_concurrent is not None and account.running >= caller.max_concurrent:
            raise _exceeded(f"{account.running} requests of this key run already, which is its limit", 1.0)
        if account.requests is not None and account.requests.left(now_s) < 1:
            raise _exceeded(
                f"this key may send {account.requests.limit} requests a minute", account.requests.until_s(1, now_s)
            )
        if account.tokens is not None and account.tokens.left(now_s) <= 0:
            raise _exceeded(
                f"this key may use {account.tokens.limit} tokens a minute", account.tokens.until_s(1, now_s)
            )
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

    def headers(self, caller: Caller) -> dict[str, str]:
        """OpenAI's x-ratelimit-* headers, for the limits that the caller has."""
        account = self._account(caller)
        now_s = self._clock()
        headers: dict[str, str] = {}
        for name, bucket in (("requests", account.requests), ("tokens", account.tokens)):
            if bucket is not None:
                headers[f"x-ratelimit-limit-{name}"] = str(bucket.limit)
                headers[f"x-ratelimit-remaining-{name}"] = str(max(0, int(bucket.left(now_s))))
                headers[f"x-ratelimit-reset-{name}"] = duration(bucket.until_s(bucket.limit, now_s))
        return headers

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


def _exceeded(message: str, retry_after_s: float) -> OverloadedError:
    return OverloadedError(message, code="rate_limit_exceeded", retry_after_s=max(1.0, retry_after_s))

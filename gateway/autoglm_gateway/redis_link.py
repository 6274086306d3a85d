"""One connection pool to the Redis that several gateways share. Redis is never needed: where it does not answer, the
caller gets None and goes on with this process's own memory."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from prometheus_client import Counter, Gauge
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from autoglm_gateway.metrics import Metrics
from autoglm_gateway.option import option

_log = logging.getLogger(__name__)
_TIMEOUT_S = 0.25
_LEFT_ALONE_S = 1.0
_MAX_CONNECTIONS = 32

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisOptions:
    redis: str | None = option(None, "redis:// or rediss:// URL; quotas and cached answers are then shared by gateways")
    redis_prefix: str = option("autoglm", "begins every key in Redis; use one per deployed model")

    def __post_init__(self) -> None:
        if self.redis is not None and not self.redis.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("--redis must begin with redis://, rediss:// or unix://")


class RedisLink:
    """To be made inside the event loop. After a failure Redis is left alone for a second: no request waits for it."""

    def __init__(self, options: RedisOptions, metrics: Metrics) -> None:
        assert options.redis is not None
        self._prefix = options.redis_prefix
        self._client: Any = Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
            options.redis,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            max_connections=_MAX_CONNECTIONS,
            retry=Retry(NoBackoff(), 0),
        )
        self._retry_at_s = 0.0
        self._is_up = True
        self._failures = Counter(
            "autoglm_gateway_redis_failures", "Calls that Redis did not answer.", registry=metrics.registry
        )
        up = Gauge("autoglm_gateway_redis_up", "Whether Redis answered last time.", registry=metrics.registry)
        up.set_function(lambda: float(self._is_up))

    def key(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))

    def script(self, text: str) -> Any:
        """A Lua script to be called inside `ask`."""
        return self._client.register_script(text)

    async def ask(self, work: Callable[[Any], Awaitable[_T]]) -> _T | None:
        """What `work(client)` says, None when Redis does not answer."""
        if time.monotonic() < self._retry_at_s:
            return None
        try:
            answer = await work(self._client)
        except (RedisError, OSError, asyncio.TimeoutError) as error:
            self._failures.inc()
            self._retry_at_s = time.monotonic() + _LEFT_ALONE_S
            if self._is_up:
                _log.warning("Redis does not answer", extra={"reason": type(error).__name__})
            self._is_up = False
            return None
        if not self._is_up:
            _log.info("Redis answers again")
        self._is_up = True
        return answer

    async def close(self) -> None:
        await self._client.aclose()

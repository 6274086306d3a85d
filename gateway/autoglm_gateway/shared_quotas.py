"""Quotas that several gateways share: the same buckets as in quotas.py, kept in Redis and moved by one Lua script.

While Redis does not answer, each gateway counts by itself. A running request is a lease, so that a gateway that dies
gives its places back.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from autoglm_gateway.api_keys import Caller
from autoglm_gateway.quotas import Quotas, exceeded, limit_headers
from autoglm_gateway.redis_link import RedisLink

_LEASE_S = 900
_NO_LIMIT = -1

# KEYS: requests bucket, tokens bucket, running requests. ARGV: what, limits of the three, request, lease, tokens.
# Says what is exceeded ("" for nothing) and until when, then what is left of requests and tokens. Redis' clock counts.
_SCRIPT = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local what, request, lease, tokens = ARGV[1], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local limits = {tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])}
local function left(i)
  local limit, saved = limits[i], redis.call('HMGET', KEYS[i], 'left', 'at')
  if not saved[1] then return limit end
  return math.min(limit, tonumber(saved[1]) + (now - tonumber(saved[2])) * limit / 60)
end
local function save(i, value)
  redis.call('HSET', KEYS[i], 'left', tostring(value), 'at', string.format('%.6f', now))
  redis.call('EXPIRE', KEYS[i], math.ceil((limits[i] - value) * 60 / limits[i]) + 60)
end
local exceeded, wait = '', 0
if what == 'take' then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
  if limits[3] >= 0 and redis.call('ZCARD', KEYS[3]) >= limits[3] then
    exceeded, wait = 'concurrent', 1
  elseif limits[1] >= 0 and left(1) < 1 then
    exceeded, wait = 'requests', (1 - left(1)) * 60 / limits[1]
  elseif limits[2] >= 0 and left(2) <= 0 then
    exceeded, wait = 'tokens', (1 - left(2)) * 60 / limits[2]
  else
    if limits[1] >= 0 then save(1, left(1) - 1) end
    redis.call('ZADD', KEYS[3], now + lease, request)
    redis.call('EXPIRE', KEYS[3], lease)
  end
elseif what == 'charge' and limits[2] >= 0 then
  save(2, left(2) - tokens)
elseif what == 'leave' then
  redis.call('ZREM', KEYS[3], request)
end
return {exceeded, tostring(wait), tostring(limits[1] >= 0 and left(1) or 0), tostring(limits[2] >= 0 and left(2) or 0)}
"""


class SharedQuotas:
    """See `quotas.QuotaCounter`."""

    def __init__(self, link: RedisLink, *, local: Quotas) -> None:
        self._link = link
        self._local = local
        self._script = link.script(_SCRIPT)
        self._afterwards: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def request(self, caller: Caller | None) -> AsyncGenerator[None, None]:
        if caller is None:
            yield
            return
        request = uuid.uuid4().hex
        answer = await self._run("take", caller, request=request)
        if answer is None:
            async with self._local.request(caller):
                yield
            return
        which = answer[0].decode()
        if which:
            raise exceeded(caller, which, float(answer[1]))
        try:
            yield
        finally:
            self._soon("leave", caller, request=request)

    def charge(self, caller: Caller | None, tokens: int) -> None:
        if caller is not None:
            self._soon("charge", caller, tokens=tokens)

    async def headers(self, caller: Caller) -> dict[str, str]:
        answer = await self._run("look", caller)
        if answer is None:
            return await self._local.headers(caller)
        return limit_headers(caller, requests_left=float(answer[2]), tokens_left=float(answer[3]))

    async def settled(self) -> None:
        """When everything is counted that was said so far."""
        if self._afterwards:
            await asyncio.wait(self._afterwards)

    def _soon(self, what: str, caller: Caller, **arguments: Any) -> None:
        # Not awaited: who leaves is often being cancelled, and nobody needs to wait for it.
        task = asyncio.ensure_future(self._or_locally(what, caller, **arguments))
        self._afterwards.add(task)
        task.add_done_callback(self._afterwards.discard)

    async def _or_locally(self, what: str, caller: Caller, **arguments: Any) -> None:
        if await self._run(what, caller, **arguments) is None and what == "charge":
            self._local.charge(caller, arguments["tokens"])

    async def _run(self, what: str, caller: Caller, *, request: str = "", tokens: int = 0) -> list[bytes] | None:
        names = ("requests", "tokens", "running")
        limits = (caller.requests_per_min, caller.tokens_per_min, caller.max_concurrent)
        arguments = [
            what,
            *(_NO_LIMIT if limit is None else limit for limit in limits),
            request,
            _LEASE_S,
            tokens,
        ]
        keys = [self._link.key("quota", caller.name, name) for name in names]
        return await self._link.ask(lambda client: self._script(keys=keys, args=arguments, client=client))

"""Several backends as one: health checks, a choice per request, and one more try elsewhere before the first token."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from autoglm_gateway.backend import Profile
from autoglm_gateway.balancing import Balancing, chooser
from autoglm_gateway.discovery import Discovery
from autoglm_gateway.hang_watch import HangLimits
from autoglm_gateway.replica import Replica, Server
from autoglm_protocol.chat import ChatRequest
from autoglm_protocol.errors import UnavailableError
from autoglm_protocol.events import Failed, Started, StreamEvent, TokenDelta
from autoglm_protocol.profile import ProfileBounds

_log = logging.getLogger(__name__)


class ReplicaSet(Collector):
    """A Backend over the servers that `discovery` finds; give it to a registry to show their state."""

    def __init__(
        self,
        discovery: Discovery,
        connect: Callable[[str], Server],
        *,
        balancing: Balancing = Balancing.LEAST_OUTSTANDING,
        check_every_s: float,
        hang_limits: HangLimits | None = None,
    ) -> None:
        self._discovery = discovery
        self._connect = connect
        self._choose = chooser(balancing)
        self._check_every_s = check_every_s
        self._hang_limits = hang_limits
        self._replicas: dict[str, Replica] = {}
        self._leaving: set[Replica] = set()
        self._checking: asyncio.Task[None] | None = None
        self._loop_task: asyncio.Task[None] | None = None
        self._num_retries = 0

    @property
    def features(self) -> frozenset[str]:
        """What every healthy replica honours."""
        known = [replica.backend.features for replica in self._replicas.values() if replica.is_healthy]
        return frozenset(name for name in known[0] if all(name in others for others in known)) if known else frozenset()

    def start(self) -> None:
        self._loop_task = asyncio.ensure_future(self._check_for_ever())

    async def generate(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        tried: set[Replica] = set()
        refusal = Failed(error=UnavailableError("no model server is ready"))
        has_started = has_token = False
        while True:
            usable = [replica for replica in await self._usable() if replica not in tried]
            if not usable:
                yield refusal
                return
            replica = self._choose(usable, request)
            tried.add(replica)
            with replica.request():
                async with aclosing(replica.backend.generate(request)) as events:
                    async for event in events:
                        if isinstance(event, Failed) and isinstance(event.error, UnavailableError):
                            replica.failed()
                            if not has_token:
                                self._num_retries += 1
                                refusal = event
                                break
                        else:
                            replica.succeeded()
                        if isinstance(event, Started):
                            if has_started:
                                continue  # the caller has the first try's
                            has_started = True
                        has_token = has_token or isinstance(event, TokenDelta)
                        yield event
                    else:
                        return

    async def ready(self) -> bool:
        return bool(await self._usable())

    async def profile(self, bounds: ProfileBounds) -> Profile:
        """Of the replica that has most to do."""
        usable = await self._usable()
        if not usable:
            raise UnavailableError("no model server is ready")
        return await max(usable, key=lambda replica: replica.outstanding).backend.profile(bounds)

    async def close(self) -> None:
        for task in (self._loop_task, self._checking):
            if task is not None:
                task.cancel()
                await asyncio.wait((task,))
        for replica in (*self._replicas.values(), *self._leaving):
            await replica.close()

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("autoglm_gateway_replica_up", "Whether a Triton takes work.", labels=["triton"])
        outstanding = GaugeMetricFamily(
            "autoglm_gateway_replica_outstanding", "Requests that a Triton works on.", labels=["triton"]
        )
        hung = GaugeMetricFamily(
            "autoglm_gateway_replica_hung", "Whether a Triton says it is ready and does not answer.", labels=["triton"]
        )
        for replica in self._replicas.values():
            up.add_metric([replica.address], float(replica.is_usable))
            hung.add_metric([replica.address], float(replica.watch.is_hung))
            outstanding.add_metric([replica.address], replica.outstanding)
        retries = CounterMetricFamily("autoglm_gateway_retries", "Requests sent to one more Triton.")
        retries.add_metric([], self._num_retries)
        yield from (up, hung, outstanding, retries)

    def describe(self) -> Iterable[Metric]:
        return ()

    async def _usable(self) -> Sequence[Replica]:
        usable = [replica for replica in self._replicas.values() if replica.is_usable]
        if not usable:
            # Perhaps one came back since the last look; all who wait share one look.
            await self._check()
            usable = [replica for replica in self._replicas.values() if replica.is_usable]
        return usable

    async def _check(self) -> None:
        if self._checking is None or self._checking.done():
            self._checking = asyncio.ensure_future(self._check_all())
        await asyncio.wait((self._checking,))

    async def _check_for_ever(self) -> None:
        while True:
            await self._check()
            await asyncio.sleep(self._check_every_s)

    async def _check_all(self) -> None:
        addresses = await self._discovery.addresses()
        for address in addresses:
            if address not in self._replicas:
                self._replicas[address] = Replica(address, self._connect(address), hang_limits=self._hang_limits)
        for address in self._replicas.keys() - set(addresses):
            _log.info("Triton is gone from discovery", extra={"triton": address})
            self._leaving.add(self._replicas.pop(address))
        before = {replica: replica.is_healthy for replica in self._replicas.values()}
        await asyncio.gather(*(replica.check() for replica in before))
        for replica, was_healthy in before.items():
            if replica.is_healthy != was_healthy:
                _log.info("Triton changed", extra={"triton": replica.address, "healthy": replica.is_healthy})
        for replica in [replica for replica in self._leaving if replica.outstanding == 0]:
            self._leaving.discard(replica)
            await replica.close()

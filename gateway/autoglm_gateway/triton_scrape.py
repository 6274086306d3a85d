"""Triton's own metrics pages, read in the background: the KV gauge that routers look at, and our models' counters.

A request for the gateway's page shows what was read last; it never waits for Triton.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping

import httpx
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from autoglm_gateway.discovery import DNS, Discovery

_log = logging.getLogger(__name__)
_PREFIX = "autoglm_"
_KV_USAGE = "autoglm_kv_usage_ratio"
_TIMEOUT_S = 2.0


class TritonScraper(Collector):
    """Give it to a registry to show every replica's `autoglm_*` metrics, told apart by the label `triton`.

    targets: pages, or `dns:///host:port` for the page of every address of a name. Those count for `kv_usage` only and
    are not shown again: where replicas come and go, Prometheus reads them itself, and several gateways would add up.
    """

    def __init__(self, targets: tuple[str, ...], *, every_s: float) -> None:
        self._urls = tuple(target for target in targets if not target.startswith(DNS))
        self._names = Discovery(tuple(target for target in targets if target.startswith(DNS)))
        self._is_on = bool(targets)
        self._every_s = every_s
        self._pages: Mapping[str, list[Metric]] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def kv_usage(self) -> float:
        """Mean share of the KV cache in use over the replicas that answer, 0 to 1; 0 when none does."""
        found = [
            sample.value
            for metrics in self._pages.values()
            for metric in metrics
            if metric.name == _KV_USAGE
            for sample in metric.samples
        ]
        return sum(found) / len(found) if found else 0.0

    def collect(self) -> Iterator[Metric]:
        merged: dict[str, Metric] = {}
        for url in self._urls:
            for metric in self._pages.get(url, ()):
                family = merged.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
                for sample in metric.samples:
                    family.add_sample(
                        sample.name, {**sample.labels, "triton": httpx.URL(url).netloc.decode()}, sample.value
                    )
        yield from merged.values()

    def describe(self) -> Iterable[Metric]:
        return ()  # asked for at registration, when nothing was read yet

    def start(self) -> None:
        if self._is_on:
            self._task = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _run(self) -> None:
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as client:
            while True:
                named = [f"http://{address}/metrics" for address in await self._names.addresses()]
                urls = (*self._urls, *named)
                pages = await asyncio.gather(*(self._read(client, url) for url in urls))
                self._pages = {url: page for url, page in zip(urls, pages, strict=True) if page is not None}
                await asyncio.sleep(self._every_s)

    async def _read(self, client: httpx.AsyncClient, url: str) -> list[Metric] | None:
        try:
            text = (await client.get(url)).raise_for_status().text
        except httpx.HTTPError as error:
            _log.debug("no metrics", extra={"url": url, "error": str(error)})
            return None
        ours = [
            line for line in text.splitlines() if line.removeprefix("# HELP ").removeprefix("# TYPE ")[:8] == _PREFIX
        ]
        return list(text_string_to_metric_families("\n".join(ours) + "\n"))

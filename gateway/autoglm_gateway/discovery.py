"""Where the Triton servers are: a fixed list, and DNS names that stand for every address behind them."""

from __future__ import annotations

import asyncio
import logging
import socket

_log = logging.getLogger(__name__)
DNS = "dns:///"


class Discovery:
    """Targets are `host:port`, one server each, or `dns:///host:port`, one server per address (a headless Service)."""

    def __init__(self, targets: tuple[str, ...]) -> None:
        self._targets = targets
        self._known: dict[str, tuple[str, ...]] = {}
        self._unresolved: dict[str, str] = {}
        """Names that could not be resolved at the last look, and why."""

    async def addresses(self) -> tuple[str, ...]:
        """What is there now, each once. A name that cannot be resolved keeps its last addresses."""
        found: list[str] = []
        for target in self._targets:
            found += await self._resolve(target) if target.startswith(DNS) else (target,)
        return tuple(dict.fromkeys(found))

    async def _resolve(self, target: str) -> tuple[str, ...]:
        host, _, port = target.removeprefix(DNS).rpartition(":")
        try:
            entries = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        except OSError as error:
            if self._unresolved.get(target) != str(error):  # said once, not at every look
                self._unresolved[target] = str(error)
                _log.warning("cannot resolve", extra={"target": target, "reason": str(error)})
            return self._known.get(target, ())
        if self._unresolved.pop(target, None) is not None:
            _log.info("resolved", extra={"target": target})
        hosts = sorted({str(entry[4][0]) for entry in entries})
        self._known[target] = tuple(
            f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address in hosts
        )
        return self._known[target]

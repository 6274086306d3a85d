"""Weights that leave memory while nobody needs them: dropped after an idle time, loaded from disk for the next request.

The checkpoint's files are mapped, so on a machine with memory to spare the kernel still holds their pages and a reload
costs one copy. On a GPU the same happens: host memory is left to the kernel, too.
"""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import nn

from autoglm_backend.models.heap import return_free_memory

Module = TypeVar("Module", bound=nn.Module)
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offloaded:
    """The weights are gone."""

    freed_bytes: int
    """Measured: this process's memory (on a GPU: the device's) before less after."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The weights are in memory, for the first time or again."""

    weights_bytes: int
    seconds: float
    is_reload: bool


Observe = Callable[[Offloaded | Loaded], None]
"""Called at every change, in the thread that made it, before anybody uses the weights."""


class Resident(Generic[Module]):
    """A module that `use` hands out, loaded when it is not in memory. Thread-safe; `close` ends its thread.

    load: makes the module anew, on its device. idle_s: unused for so long it is dropped; None keeps it for ever.
    """

    def __init__(
        self, load: Callable[[], Module], device: torch.device, *, idle_s: float | None, observe: Observe | None = None
    ) -> None:
        self._load = load
        self._device = device
        self._idle_s = idle_s
        self._observe = observe
        self._condition = threading.Condition()
        self._users = 0
        self._is_closed = False
        self._module: Module | None = None
        self._used_s: float | None = None
        """When the last use ended; None until the first load."""
        self._loaded()
        self._used_s = time.monotonic()
        self._thread = None
        if idle_s is not None:
            self._thread = threading.Thread(target=self._watch, args=(idle_s,), name="residency", daemon=True)
            self._thread.start()

    @contextlib.contextmanager
    def use(self) -> Iterator[Module]:
        """The module, which stays for as long as the block lasts. Waits for a load; raises what loading raises."""
        with self._condition:  # requests that come during a load wait here
            module = self._loaded()
            self._users += 1
        try:
            yield module
        finally:
            del module
            with self._condition:
                self._users -= 1
                self._used_s = time.monotonic()
                self._condition.notify_all()

    def close(self) -> None:
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _loaded(self) -> Module:
        if self._module is None:
            started_s = time.monotonic()
            self._module = self._load()
            self._tell(
                Loaded(
                    weights_bytes=sum(p.numel() * p.element_size() for p in self._module.parameters()),
                    seconds=time.monotonic() - started_s,
                    is_reload=self._used_s is not None,
                )
            )
        return self._module

    def _watch(self, idle_s: float) -> None:
        with self._condition:
            while not self._is_closed:
                if self._module is None or self._users:
                    self._condition.wait()
                    continue
                assert self._used_s is not None
                rest_s = self._used_s + idle_s - time.monotonic()
                if rest_s > 0:
                    self._condition.wait(rest_s)
                else:
                    self._drop()

    def _drop(self) -> None:
        # First what anybody else left behind, or it would count as these weights' memory.
        _return_free_memory(self._device)
        before = _memory_bytes(self._device)
        self._module = None
        _return_free_memory(self._device)
        self._tell(Offloaded(freed_bytes=max(0, before - _memory_bytes(self._device))))

    def _tell(self, change: Offloaded | Loaded) -> None:
        if self._observe is not None:
            self._observe(change)


def _memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    return resident_pages * _PAGE_BYTES


def _return_free_memory(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    else:
        return_free_memory()

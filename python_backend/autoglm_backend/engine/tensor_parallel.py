"""Rank 0 of a tensor-parallel decoder: it starts the other ranks, hands them each span, and watches that they live.

The engine knows nothing of it: what it calls is `TextDecoder.prepared`, and that call sends the span's tables and
hidden states to the other ranks, which run their own layers over their own keys and values. A rank that ends takes the
server with it, because all others wait for its part of every sum.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store, TCPStore  # pyright: ignore[reportPrivateImportUsage] (documented, not listed)

from autoglm_backend.engine.kv_cache import PagedAttention
from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.step_tables import SegmentTables
from autoglm_backend.models.config import CheckpointError, TextConfig
from autoglm_backend.models.decoder import RunSpan
from autoglm_backend.models.layers import Rotation
from autoglm_backend.models.parallel import check_parallel

PYTHON_VARIABLE = "AUTOGLM_PYTHON"
"""The interpreter of the launcher; inside Triton's stub sys.executable is none."""
WORKER_MODULE = "autoglm_backend.engine.tensor_parallel_worker"
GROUP_TIMEOUT_S = 300.0
"""For the ranks to find each other and for any one sum; a first step compiles its kernels."""
STOP_S = 10.0
DEATH_SEEN_S = 1.0

OnLost = Callable[[str], None]
"""Told once, in some thread, why the ranks cannot go on."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a rank must know to load its share and to join the others."""

    checkpoint_dir: Path
    options: EngineOptions
    rank: int
    store_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanCall:
    """One span, sent to every rank; hidden states [T, D] and rotary angles follow by broadcast."""

    first: int
    last: int
    tables: SegmentTables


class WorkerGroup:
    """The ranks above 0, each a process of its own."""

    def __init__(self, checkpoint_dir: Path, options: EngineOptions, device: torch.device) -> None:
        """Start the processes and join them; they load their weights meanwhile."""
        self._on_lost: OnLost | None = None
        self._loss: str | None = None
        self._is_closing = False
        self._lock = threading.Lock()
        self._workers: list[tuple[subprocess.Popen[bytes], Connection]] = []
        self._is_cuda = device.type == "cuda"
        # Every rank is on this machine; gloo would otherwise look for the host's name on the network.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        size = options.tensor_parallel_size
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        try:
            for rank in range(1, size):
                job = Job(checkpoint_dir=checkpoint_dir, options=options, rank=rank, store_port=store.port)
                self._workers.append(_start_worker(job))
                log.info("tensor-parallel rank %d is process %d", rank, self._workers[-1][0].pid)
            self._await("joined")
            join_group(store, rank=0, size=size, device=device)
        except BaseException:
            self.close()
            raise
        for rank, (process, _) in enumerate(self._workers, start=1):
            threading.Thread(target=self._watch, args=(rank, process), name=f"rank-{rank}", daemon=True).start()

    def await_loaded(self) -> None:
        """Returns once every rank has its weights. Raises CheckpointError with a rank's own words."""
        self._await("loaded")

    def watch(self, on_lost: OnLost) -> None:
        """Call `on_lost` when a rank ends by itself, at once if one already has."""
        with self._lock:
            self._on_lost = on_lost
            loss = self._loss
        if loss is not None:
            on_lost(loss)

    def spans(self, run: RunSpan) -> RunSpan:
        """`run` on all ranks; rank 0's result is everyone's."""

        def run_everywhere(
            first: int, last: int, hidden_TD: Tensor, rotation: Rotation, attend: PagedAttention
        ) -> Tensor:
            call = pickle.dumps(SpanCall(first=first, last=last, tables=attend.tables))
            try:
                for _, connection in self._workers:
                    connection.send_bytes(call)
                hidden_TD = hidden_TD.contiguous()
                dist.broadcast(hidden_TD, src=0)
                dist.broadcast(torch.stack(rotation), src=0)
                return run(first, last, hidden_TD, rotation, attend)
            except BaseException as error:
                # The others wait inside a sum for what will not come; no later span could be trusted.
                self._lose(self._first_death() or f"a tensor-parallel step broke on rank 0: {error}")
                raise

        return run_everywhere

    def close(self) -> None:
        """End the other ranks and leave the group; safe to call again."""
        with self._lock:
            self._is_closing = True
        for _, connection in self._workers:
            connection.close()
        for process, _ in self._workers:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if dist.is_initialized():
            dist.destroy_process_group()

    def _await(self, word: str) -> None:
        for rank, (process, connection) in enumerate(self._workers, start=1):
            try:
                said, detail = connection.recv()
            except (EOFError, OSError):
                raise CheckpointError(
                    f"tensor-parallel rank {rank} ended with status {process.wait()} before it had {word}"
                ) from None
            if said != word:
                raise CheckpointError(detail)

    def _watch(self, rank: int, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        self._lose(_ending(rank, process))

    def _first_death(self) -> str | None:
        """A sum breaks a moment before the death that broke it is seen."""
        for rank, (process, _) in enumerate(self._workers, start=1):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(DEATH_SEEN_S)
                return _ending(rank, process)
        return None

    def _lose(self, message: str) -> None:
        with self._lock:
            if self._is_closing or self._loss is not None:
                return
            self._loss = message
            on_lost = self._on_lost
        if self._is_cuda:
            # NCCL would wait for the missing rank; gloo's connection breaks by itself.
            with contextlib.suppress(RuntimeError):
                dist.distributed_c10d._abort_process_group()
        log.error("%s", message)
        if on_lost is not None:
            on_lost(message)


def start_group(
    checkpoint_dir: Path, config: TextConfig, options: EngineOptions, device: torch.device
) -> WorkerGroup | None:
    """The other ranks, None for one rank. Raises ValueError for a size that cannot share the layers."""
    if options.tensor_parallel_size == 1:
        return None
    check_parallel(config, options.tensor_parallel_size)
    return WorkerGroup(checkpoint_dir, options, device)


def join_group(store: Store, *, rank: int, size: int, device: torch.device) -> None:
    """Meet the other ranks: NCCL between GPUs, gloo between CPU processes."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=size, timeout=timedelta(seconds=GROUP_TIMEOUT_S)
    )


def rank_threads(options: EngineOptions, device: torch.device) -> int:
    """Torch threads of one rank: CPU ranks share the cores."""
    if device.type == "cuda":
        return options.num_threads
    return max(1, options.num_threads // options.tensor_parallel_size)


def _ending(rank: int, process: subprocess.Popen[bytes]) -> str:
    status = process.returncode
    ending = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return f"tensor-parallel rank {rank} (process {process.pid}) {ending}"


def _start_worker(job: Job) -> tuple[subprocess.Popen[bytes], Connection]:
    ours, theirs = Pipe()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [os.environ.get(PYTHON_VARIABLE) or sys.executable, "-m", WORKER_MODULE, str(theirs.fileno())]
    with theirs:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),), env=environment, close_fds=True
        )
    ours.send(job)
    return process, ours

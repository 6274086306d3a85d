"""Training data drawn ahead of the trainer by worker processes; draw number i is the same in every run.

Each draw has a random state of its own, from the seed and its number. A resumed run therefore goes on with exactly the
draws that an uninterrupted one would have seen.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import random
from collections.abc import Callable
from typing import Any

import torch

Draw = Callable[[random.Random], Any]
QUEUE_AHEAD = 24
WORKER_TIMEOUT_S = 300.0
ALIVE_CHECK_S = 10.0


def draw_number(draw: Draw, seed: int, number: int) -> Any:
    """Draw number `number` of a run."""
    return draw(random.Random(f"{seed}:{number}"))


def _draw_forever(draw: Draw, seed: int, first: int, stride: int, out: Any) -> None:
    torch.set_num_threads(1)
    os.nice(2)
    trainer = multiprocessing.parent_process()
    number = first
    while True:
        drawn = draw_number(draw, seed, number)
        number += stride
        while True:
            # A trainer that was killed never asks again: without this its worker would wait for ever.
            if trainer is not None and not trainer.is_alive():
                os._exit(0)
            try:
                out.put(drawn, timeout=ALIVE_CHECK_S)
                break
            except queue.Full:
                continue


class Draws:
    """Draws from number `start` on, in order. `taken`: the number of the next one."""

    def __init__(self, draw: Draw, seed: int, start: int = 0, workers: int = 1) -> None:
        context = multiprocessing.get_context("fork")
        self.taken = start
        self._first = start
        self._queues = [context.Queue(max(2, QUEUE_AHEAD // workers)) for _ in range(workers)]
        self._processes = [
            context.Process(target=_draw_forever, args=(draw, seed, start + index, workers, out), daemon=True)
            for index, out in enumerate(self._queues)
        ]
        for process in self._processes:
            process.start()

    def next(self) -> Any:
        """The next draw. Raises RuntimeError when a worker has died."""
        turn = (self.taken - self._first) % len(self._queues)
        while True:
            try:
                drawn = self._queues[turn].get(timeout=WORKER_TIMEOUT_S)
            except queue.Empty:
                if not self._processes[turn].is_alive():
                    raise RuntimeError("a drawing process has died; its error stands above") from None
                continue
            self.taken += 1
            return drawn

    def close(self) -> None:
        for process in self._processes:
            process.terminate()


class PooledDraws:
    """Batches from draws that hold several of them each. `taken`: (draw, batches used of it) of the next one."""

    def __init__(self, draw: Draw, seed: int, start: tuple[int, int] = (0, 0), workers: int = 1) -> None:
        self._draws = Draws(draw, seed, start[0], workers)
        self.taken = start
        self._pool: list[Any] = []

    def next(self) -> Any:
        """The next batch. Raises RuntimeError when a worker has died."""
        number, used = self.taken
        if not self._pool:
            self._pool = self._draws.next()
        batch = self._pool[used]
        self.taken = (number, used + 1)
        if used + 1 == len(self._pool):
            self._pool, self.taken = [], (number + 1, 0)
        return batch

    def close(self) -> None:
        self._draws.close()

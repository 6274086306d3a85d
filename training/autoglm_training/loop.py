"""What every stage shares: the schedule, the optimizer, one drawing process ahead of the trainer, and the log."""

from __future__ import annotations

import multiprocessing
import os
import queue
import random
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch
from torch import nn

from autoglm_training.config.recipes import StageConfig

Draw = Callable[[random.Random], Any]
QUEUE_AHEAD = 24
WORKER_TIMEOUT_S = 300.0
ALIVE_CHECK_S = 10.0


def learning_rate(config: StageConfig, step: int) -> float:
    """Linear warm-up to the peak, then a linear fall to `final_lr` at the last step."""
    warm = min(1.0, (step + 1) / config.warmup_steps)
    fall = min(1.0, step / max(1, config.steps))
    return warm * (config.peak_lr + (config.final_lr - config.peak_lr) * fall)


def make_optimizer(modules: Sequence[nn.Module], config: StageConfig) -> torch.optim.AdamW:
    """AdamW; vectors (norms, biases) are not decayed."""
    parameters = list(dict.fromkeys(p for module in modules for p in module.parameters() if p.requires_grad))
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.peak_lr, betas=(0.9, 0.98), fused=True)


def apply_gradients(optimizer: torch.optim.AdamW, config: StageConfig, step: int) -> float:
    """Clip, step at the scheduled rate, clear. Returns the gradient norm before clipping."""
    rate = learning_rate(config, step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = float(nn.utils.clip_grad_norm_(parameters, config.clip_norm))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def _draw_forever(draw: Draw, seed: int, out: Any) -> None:
    torch.set_num_threads(1)
    os.nice(2)
    rng = random.Random(seed)
    trainer = multiprocessing.parent_process()
    while True:
        drawn = draw(rng)
        while True:
            # A trainer that was killed never asks again: without this its worker would wait for ever.
            if trainer is not None and not trainer.is_alive():
                os._exit(0)
            try:
                out.put(drawn, timeout=ALIVE_CHECK_S)
                break
            except queue.Full:
                continue


def drawn_ahead(draw: Draw, seed: int, workers: int = 1) -> Generator[Any, None, None]:
    """Endless batches of `draw`, made by worker processes. Raises RuntimeError when a worker has died."""
    context = multiprocessing.get_context("fork")
    out = context.Queue(QUEUE_AHEAD)
    processes = [
        context.Process(target=_draw_forever, args=(draw, seed * 1000 + index, out), daemon=True)
        for index in range(workers)
    ]
    for process in processes:
        process.start()
    try:
        while True:
            try:
                yield out.get(timeout=WORKER_TIMEOUT_S)
            except queue.Empty:
                if not all(process.is_alive() for process in processes):
                    raise RuntimeError("a drawing process has died; its error stands above") from None
    finally:
        for process in processes:
            process.terminate()


class Meter:
    """Running means of named figures since the last line, printed with elapsed time and rate."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._weights: dict[str, float] = {}
        self._began = self._last = time.monotonic()

    def add(self, name: str, value: float, weight: float = 1.0) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + value * weight
        self._weights[name] = self._weights.get(name, 0.0) + weight

    def line(self, step: int, steps: int) -> str:
        now = time.monotonic()
        means = " ".join(f"{name} {total / max(self._weights[name], 1e-9):.3f}" for name, total in self._sums.items())
        text = f"step {step}/{steps} {now - self._began:.0f}s (+{now - self._last:.1f}s) {means}"
        self._sums.clear()
        self._weights.clear()
        self._last = now
        return text

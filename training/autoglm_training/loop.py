"""The loop of every stage: schedule, optimizer, mixed precision, saving, and going on where a run was interrupted."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from autoglm_training.checkpoint import load_training, save_training
from autoglm_training.config.recipes import StageConfig
from autoglm_training.progress import Board, Meter, Progress

DRAW_EVERY_S = 300.0
Place = TypeVar("Place")
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What one call did of a stage: its steps from `first` to `last`."""

    stage: str
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Where and how stages run. precision: of the forward pass; weights stay float32, fp16 scales its losses.

    resume: go on from a stage's file where there is one. restart: begin anew, over such a file.
    """

    run_dir: Path
    resume: bool = False
    restart: bool = False
    device: str = "cpu"
    precision: str = "bf16"
    workers: int = 1
    board: Board | None = None
    ran: list[Ran] = field(default_factory=list[Ran])
    """Filled by the stages as they end, however they end."""

    def autocast(self) -> AbstractContextManager[object]:
        kind = torch.device(self.device).type
        return torch.autocast(kind, PRECISIONS[self.precision], enabled=self.precision != "fp32")

    def may_write(self, path: Path) -> None:
        """Raises FileExistsError for a stage's file that was neither to be resumed nor to be replaced."""
        if path.exists() and not (self.resume or self.restart):
            raise FileExistsError(f"{path} exists: --resume goes on from it, --restart begins anew and overwrites it")

    def scaler(self) -> torch.amp.GradScaler:
        """Grows the losses so that fp16 gradients do not vanish, and shrinks them again when they overflow."""
        return torch.amp.GradScaler(torch.device(self.device).type, enabled=self.precision == "fp16")


class Source(Protocol):
    """Where batches come from; `taken` is where a resumed run goes on."""

    @property
    def taken(self) -> Any: ...

    def close(self) -> None: ...


def learning_rate(config: StageConfig, step: int) -> float:
    """Linear warm-up to the peak, then a fall to `final_lr` at the last step: linear, or along a cosine."""
    warm = min(1.0, (step + 1) / config.warmup_steps)
    fall = min(1.0, step / max(1, config.steps))
    if config.cosine:
        fall = 0.5 * (1 - math.cos(math.pi * fall))
    return warm * (config.peak_lr + (config.final_lr - config.peak_lr) * fall)


def make_optimizer(
    modules: Sequence[nn.Module], config: StageConfig, slow: Collection[nn.Parameter] = ()
) -> torch.optim.AdamW:
    """AdamW; vectors (norms, biases) are not decayed, `slow` parameters move at `config.slow_share` of the rate."""
    parameters = list(dict.fromkeys(p for module in modules for p in module.parameters() if p.requires_grad))
    held = {id(parameter) for parameter in slow}
    groups = [
        {
            "params": [p for p in parameters if (id(p) in held) is is_slow and (p.dim() > 1) is is_matrix],
            "weight_decay": config.weight_decay if is_matrix else 0.0,
            "share": config.slow_share if is_slow else 1.0,
        }
        for is_slow in ((False, True) if held else (False,))
        for is_matrix in (True, False)
    ]
    return torch.optim.AdamW(groups, lr=config.peak_lr, betas=(0.9, 0.98), fused=True)


def apply_gradients(
    optimizer: torch.optim.AdamW, config: StageConfig, step: int, scaler: torch.amp.GradScaler
) -> float:
    """Clip, step at the scheduled rate, clear. Returns the gradient norm before clipping (not finite: not stepped)."""
    rate = learning_rate(config, step)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("share", 1.0)  # states saved before there were shares have none
    scaler.unscale_(optimizer)
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = float(nn.utils.clip_grad_norm_(parameters, config.clip_norm))
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return norm


class Trainer:
    """One stage under way. `rng` and `counts` belong to the stage and are saved with it."""

    def __init__(
        self,
        name: str,
        config: StageConfig,
        file: str,
        modules: dict[str, nn.Module],
        session: Session,
        seed: int,
        slow: Collection[nn.Parameter] = (),
    ) -> None:
        self.config, self.session = config, session
        self.modules = {name: module.to(session.device) for name, module in modules.items()}
        self.optimizer = make_optimizer(list(self.modules.values()), config, slow)
        self.meter, self.rng, self.counts = Meter(), random.Random(seed), Counter[str]()
        self.step = 0
        self._name, self._path = name, session.run_dir / file
        self._scaler = session.scaler()
        self._sources: dict[str, Source] = {}
        self._seed = seed
        self._taken: dict[str, Any] = {}

    def restore(self) -> bool:
        """Go on from the stage's file, if that is wanted and there is one. Another seed starts its own data afresh.

        Raises OSError (FileExistsError: neither resume nor restart was asked) or ValueError for a damaged file.
        """
        self.session.may_write(self._path)
        if not (self.session.resume and self._path.exists()):
            return False
        saved = load_training(self._path, self.modules, self.optimizer, self.session.device)
        self.step = saved["step"]
        self.counts.update(saved.get("counts", {}))
        if saved.get("seed") == self._seed:
            self._taken = saved["taken"]
            self.rng.setstate(saved["rng"])
        if saved.get("scaler"):
            self._scaler.load_state_dict(saved["scaler"])
        return True

    def taken(self, source: str, nothing: Place) -> Place:
        """Where an earlier run has left a source, else `nothing`."""
        return self._taken.get(source, nothing)

    def watch(self, **sources: Source) -> None:
        """Sources whose place is saved; they are closed at the end."""
        self._sources.update(sources)

    def run(self, losses: Callable[[], Iterator[Tensor]]) -> bool:
        """Steps until the stage's last; each takes the gradients of all that `losses` yields, one after the other.

        Returns whether there were any left to do. Raises OSError.
        """
        first = self.step
        if first >= self.config.steps:
            print(f"{self._name}: {self._path} has {first} of {self.config.steps} steps: nothing to do", flush=True)
        progress = Progress(self._name, first, self.config.steps, self.session.run_dir, self.session.board)
        saved = drawn = time.monotonic()
        try:
            while self.step < self.config.steps:
                for loss in losses():
                    self._scaler.scale(loss).backward()
                self.meter.add("norm", apply_gradients(self.optimizer, self.config, self.step, self._scaler))
                self.step += 1
                progress.bar(self.step, self.meter)
                if self.step % self.config.log_every == 0:
                    progress.line(self.step, self.meter)
                if time.monotonic() - saved > self.config.save_every_s:
                    self.save()
                    saved = time.monotonic()
                if time.monotonic() - drawn > DRAW_EVERY_S:
                    progress.draw()
                    drawn = time.monotonic()
            if self.step > first:
                if self.step % self.config.log_every:
                    progress.line(self.step, self.meter)
                self.save()
            progress.draw()
            return self.step > first
        finally:
            self.session.ran.append(Ran(stage=self._name, first=first, last=self.step))
            for source in self._sources.values():
                source.close()

    def save(self) -> None:
        """The whole state, atomically. Raises OSError."""
        state = {
            "step": self.step,
            "seed": self._seed,
            "counts": dict(self.counts),
            "taken": {name: source.taken for name, source in self._sources.items()},
            "rng": self.rng.getstate(),
            "scaler": self._scaler.state_dict(),
        }
        save_training(self._path, self.modules, self.optimizer, state)

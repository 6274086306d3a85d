"""The loop of every stage: a resumed run is the uninterrupted one, overflowing steps are skipped, curves are drawn."""

from __future__ import annotations

import io
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from autoglm_training.config.recipes import StageConfig
from autoglm_training.draws import Draws, PooledDraws, draw_number
from autoglm_training.loop import Session, Trainer, apply_gradients, learning_rate, make_optimizer
from autoglm_training.progress import Meter, Progress, clock, draw_curves, open_board

CONFIG = StageConfig(steps=6, peak_lr=1e-2, final_lr=1e-3, warmup_steps=1, log_every=2)


def draw_row(rng: random.Random) -> list[float]:
    return [rng.random() for _ in range(3)]


def draw_pool(rng: random.Random) -> list[list[float]]:
    return [draw_row(rng) for _ in range(rng.randint(1, 3))]


def trained(folder: Path, stops: tuple[int, ...], precision: str = "fp32") -> Tensor:
    """The weights after six steps, taken in runs that each end at one of `stops`."""
    weights = torch.zeros(())
    for steps in stops:
        torch.manual_seed(1)
        model = nn.Linear(3, 1)
        session = Session(run_dir=folder, resume=True, precision=precision)
        config = replace(CONFIG, steps=steps)
        trainer = Trainer("toy", config, "toy.pt", {"model": model}, session, seed=5)
        trainer.restore()
        # the whole schedule's rate, however far this run goes
        trainer.config = replace(config, steps=steps)
        draws = PooledDraws(draw_pool, 3, trainer.taken("rows", (0, 0)))
        trainer.watch(rows=draws)

        def losses(
            trainer: Trainer = trainer, draws: PooledDraws = draws, model: nn.Module = model
        ) -> Iterator[Tensor]:
            row = torch.tensor(draws.next())
            with trainer.session.autocast():
                yield (model(row) - trainer.rng.random()).float().square().mean()

        trainer.run(losses)
        weights = model.weight.detach()
    return weights


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoglm_training.loop.learning_rate", lambda config, step: 1e-2)
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    torch.testing.assert_close(
        trained(tmp_path / "parts", (2, 3, 6)), trained(tmp_path / "whole", (6,)), rtol=0, atol=0
    )


def test_another_seed_resumes_the_weights_and_draws_its_own_data(tmp_path: Path) -> None:
    """Draws of another seed hold other numbers of batches: a place in them means nothing there."""
    trainers = []
    for seed in (5, 6):
        session = Session(run_dir=tmp_path, resume=True)
        trainer = Trainer("toy", CONFIG, "toy.pt", {"model": nn.Linear(3, 1)}, session, seed)
        trainer.restore()
        trainers.append(trainer)
        trainer.watch(rows=PooledDraws(draw_pool, seed, (7, 2)))
        trainer.step += 1
        trainer.save()
    assert trainers[1].step == 2
    assert trainers[1].taken("rows", (0, 0)) == (0, 0)
    assert torch.equal(trainers[0].modules["model"].weight, trainers[1].modules["model"].weight)


def test_draws_are_the_same_for_any_number_of_workers() -> None:
    expected = [draw_number(draw_row, 7, number) for number in range(2, 8)]
    for workers in (1, 2):
        draws = Draws(draw_row, 7, start=2, workers=workers)
        assert [draws.next() for _ in range(6)] == expected
        draws.close()


def test_a_step_that_overflows_is_skipped_and_the_scale_shrinks() -> None:
    model = nn.Linear(2, 1)
    optimizer = make_optimizer([model], CONFIG)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = model.weight.detach().clone()
    scaler.scale((model(torch.ones(1, 2)) * float("inf")).sum()).backward()
    apply_gradients(optimizer, CONFIG, 0, scaler)
    torch.testing.assert_close(model.weight.detach(), before, rtol=0, atol=0)
    assert scaler.get_scale() == 512.0


def test_fp16_training_learns(tmp_path: Path) -> None:
    torch.manual_seed(1)
    start = nn.Linear(3, 1).weight.detach().clone()
    weights = trained(tmp_path, (6,), "fp16")
    assert bool(weights.isfinite().all())
    assert not torch.equal(weights, start)


def test_rate_warms_up_and_falls() -> None:
    config = StageConfig(steps=100, peak_lr=1.0, final_lr=0.1, warmup_steps=10)
    rates = [learning_rate(config, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9]
    assert rates[100] == pytest.approx(0.1)


def test_a_cosine_falls_to_the_same_rate() -> None:
    config = StageConfig(steps=100, peak_lr=1.0, final_lr=0.1, warmup_steps=1, cosine=True)
    assert [learning_rate(config, step) for step in (0, 50, 100)] == pytest.approx([1.0, 0.55, 0.1])


def test_slow_parameters_move_at_their_share_of_the_rate() -> None:
    config = StageConfig(steps=10, peak_lr=1.0, final_lr=1.0, warmup_steps=1, slow_share=0.5)
    known, fresh = nn.Linear(2, 1), nn.Linear(2, 1)
    optimizer = make_optimizer([known, fresh], config, slow=list(known.parameters()))
    apply_gradients(optimizer, config, 3, torch.amp.GradScaler("cpu", enabled=False))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert (rates[id(known.weight)], rates[id(known.bias)], rates[id(fresh.weight)]) == (0.5, 0.5, 1.0)


def test_a_state_without_shares_still_resumes(tmp_path: Path) -> None:
    """Runs that began before groups had a share go on at the whole rate."""
    model = nn.Linear(2, 1)
    optimizer = make_optimizer([model], CONFIG)
    for group in optimizer.param_groups:
        del group["share"]
    apply_gradients(
        optimizer, replace(CONFIG, peak_lr=1.0, final_lr=1.0), 3, torch.amp.GradScaler("cpu", enabled=False)
    )
    assert {group["lr"] for group in optimizer.param_groups} == {1.0}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_a_bar_with_tokens_a_second_and_time_left(tmp_path: Path) -> None:
    out, meter = Terminal(), Meter()
    progress = Progress("toy", 0, 10, tmp_path, out=out)
    meter.tokens = 500
    progress.bar(5, meter)
    assert "[############............] 5/10" in out.getvalue()
    assert "tokens/s" in out.getvalue()
    assert "left" in out.getvalue()


def test_a_log_file_sees_lines_only(tmp_path: Path) -> None:
    out, meter = io.StringIO(), Meter()
    progress = Progress("toy", 0, 10, tmp_path, out=out)
    progress.bar(5, meter)
    assert out.getvalue() == ""
    meter.add("t_loss", 2.0)
    progress.line(6, meter)
    assert out.getvalue().startswith("toy step 6/10")
    assert "t_loss 2.000" in out.getvalue()


def test_curves_are_a_picture(tmp_path: Path) -> None:
    figures = tmp_path / "toy.jsonl"
    figures.write_text('{"step": 1, "a_loss": 3.0}\n{"step": 2, "a_loss": 1.0, "a_acc": 0.5}\n', encoding="utf-8")
    draw_curves(figures, tmp_path / "toy.png")
    with Image.open(tmp_path / "toy.png") as picture:
        assert picture.width > 600


@pytest.mark.parametrize(("seconds", "shown"), [(7.4, "0:07"), (95, "1:35"), (3725, "1:02:05"), (-1, "0:00")])
def test_time_left_reads_like_a_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_no_board_is_opened_where_none_is_wanted() -> None:
    assert open_board(None) is None


def test_a_board_without_its_package_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        open_board(tmp_path)


def test_a_board_is_told_every_figure(tmp_path: Path) -> None:
    told: list[tuple[str, float, int]] = []

    class Board:
        def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
            told.append((tag, scalar_value, global_step))

    meter = Meter()
    meter.add("t_loss", 2.0)
    Progress("toy", 0, 10, tmp_path, Board(), out=io.StringIO()).line(6, meter)
    assert told == [("toy/t_loss", 2.0, 6)]


def toy(folder: Path, **session: bool) -> Trainer:
    return Trainer("toy", CONFIG, "toy.pt", {"model": nn.Linear(3, 1)}, Session(run_dir=folder, **session), 5)


def test_a_finished_stage_is_not_overwritten_unasked(tmp_path: Path) -> None:
    toy(tmp_path).save()
    before = (tmp_path / "toy.pt").read_bytes()
    with pytest.raises(FileExistsError, match=r"toy.pt exists: --resume .* --restart"):
        toy(tmp_path).restore()
    assert (tmp_path / "toy.pt").read_bytes() == before
    assert not toy(tmp_path, restart=True).restore()
    assert toy(tmp_path, resume=True).restore()


def test_a_short_run_leaves_figures_and_a_picture(tmp_path: Path) -> None:
    trainer = Trainer("toy", replace(CONFIG, steps=1), "toy.pt", {"m": nn.Linear(3, 1)}, Session(run_dir=tmp_path), 5)

    def losses() -> Iterator[Tensor]:
        trainer.meter.add("toy_loss", 2.0)
        yield trainer.modules["m"](torch.ones(1, 3)).square().mean()

    assert trainer.run(losses)
    assert json.loads((tmp_path / "toy.jsonl").read_text())["toy_loss"] == 2.0
    assert (tmp_path / "toy.png").exists()


def test_figures_of_steps_after_the_last_saved_state_are_dropped(tmp_path: Path) -> None:
    figures = tmp_path / "toy.jsonl"
    figures.write_text('{"step": 2}\n{"step": 4}\n{"step": 6', encoding="utf-8")
    Progress("toy", 2, 10, tmp_path, out=io.StringIO())
    assert figures.read_text(encoding="utf-8") == '{"step": 2}\n'

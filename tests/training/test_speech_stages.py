"""The speech stages of a recipe, on noise instead of voices: interrupted and resumed they end in the same weights."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from autoglm_training.config.recipes import TINY_CPU, SpeechStage, SpokenClips
from autoglm_training.loop import Session
from autoglm_training.speech import clips
from autoglm_training.speech.ctc_stage import train_ctc
from autoglm_training.speech.heard import HeardClips, piece_encoder
from autoglm_training.speech.synth import Voice
from autoglm_training.speech.token_stage import train_tokens
from autoglm_training.tokenizer import load_tokenizer

TOKENIZER = Path("checkpoints/autoglm-phone-tiny/tokenizer.json")
STAGE = SpeechStage(steps=3, peak_lr=1e-3, final_lr=1e-3, warmup_steps=1, batch_seconds=2.0, slow_share=0.5)
CLIPS = SpokenClips(train_shards=1, test_shards=1, train_clips=6, test_clips=2)


@pytest.fixture(autouse=True)
def hissing_voices(monkeypatch: pytest.MonkeyPatch) -> None:
    def hiss(text: str, voice: Voice) -> NDArray[np.int16]:
        length = 8_000 + 100 * min(len(text), 60)
        return np.random.default_rng(len(text)).integers(-9_000, 9_000, length, dtype=np.int16)

    monkeypatch.setattr(clips, "synthesise", hiss)


def run_dir(folder: Path) -> Path:
    folder.mkdir()
    shutil.copy(TOKENIZER, folder / "tokenizer.json")
    return folder


def trained(folder: Path, stops: tuple[int, ...], seed: int = 1) -> dict[str, dict[str, torch.Tensor]]:
    """Modules after both stages, each stage's steps taken in runs that end at `stops`."""
    for train, name in ((train_ctc, "ctc"), (train_tokens, "tokens")):
        for steps in stops:
            recipe = replace(TINY_CPU, seed=seed, clips=CLIPS, **{name: replace(STAGE, steps=steps)})
            train(recipe, Session(run_dir=folder, resume=True), folder)
    return torch.load(folder / "tokens.pt", weights_only=False)["modules"]


def flat(modules: dict[str, dict[str, torch.Tensor]]) -> torch.Tensor:
    tensors = [value for state in modules.values() for value in state.values() if isinstance(value, torch.Tensor)]
    return torch.cat([tensor.flatten() for tensor in tensors])


def test_resumed_speech_stages_equal_uninterrupted_ones(tmp_path: Path) -> None:
    expected = trained(run_dir(tmp_path / "whole"), (3,))
    resumed = trained(run_dir(tmp_path / "parts"), (1, 2, 3))
    assert torch.equal(flat(expected), flat(resumed))


def test_another_seed_trains_another_encoder_on_the_same_clips(tmp_path: Path) -> None:
    first, second = (run_dir(tmp_path / str(seed)) for seed in (1, 2))
    assert not torch.equal(flat(trained(first, (1,), seed=1)), flat(trained(second, (1,), seed=2)))
    same = (path.read_bytes() for path in (first / "tasks-train-000.npz", second / "tasks-train-000.npz"))
    assert len(set(same)) == 1


def test_speech_stages_leave_what_the_joint_stage_and_the_export_need(tmp_path: Path) -> None:
    folder = run_dir(tmp_path / "run")
    trained(folder, (1,))
    assert len(HeardClips("train", folder)) == CLIPS.train_clips
    encoder, piece_ids = piece_encoder(folder, load_tokenizer(TOKENIZER))
    assert encoder.config.num_pieces + 1 == len(piece_ids)
    for name in ("ctc", "tokens"):
        assert (folder / f"{name}.png").exists()
        assert (folder / f"{name}_report.json").exists()


def test_the_first_stage_leaves_the_projector_alone(tmp_path: Path) -> None:
    folder = run_dir(tmp_path / "run")
    for steps in (1, 3):
        recipe = replace(TINY_CPU, clips=CLIPS, ctc=replace(STAGE, steps=steps))
        train_ctc(recipe, Session(run_dir=folder, resume=True), folder)
        state = torch.load(folder / "ctc.pt", weights_only=False)["modules"]["encoder"]
        shutil.copy(folder / "ctc.pt", folder / f"ctc_{steps}.pt")
    first = torch.load(folder / "ctc_1.pt", weights_only=False)["modules"]["encoder"]
    assert torch.equal(first["projector_in.weight"], state["projector_in.weight"])
    assert not torch.equal(first["conv1.weight"], state["conv1.weight"])


def test_a_state_of_the_stages_before_they_were_the_recipes_is_refused_by_name(tmp_path: Path) -> None:
    folder = run_dir(tmp_path / "run")
    torch.save({"encoder": {}, "head": {}, "step": 8000}, folder / "ctc.pt")
    recipe = replace(TINY_CPU, clips=CLIPS, ctc=STAGE)
    with pytest.raises(ValueError, match=r"ctc.pt is not a state of this stage: it has no 'modules'"):
        train_ctc(recipe, Session(run_dir=folder, resume=True), folder)


def test_a_missing_encoder_names_the_stage_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--stage speech"):
        piece_encoder(tmp_path, load_tokenizer(TOKENIZER))

"""Speech training: the alphabet, the distortions, the voices, clips on disk, the heads, the exported sidecar."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from autoglm_backend.models.config import CheckpointError, SpeechConfig
from autoglm_backend.models.speech import SpeechEncoder, load_speech_encoder
from autoglm_backend.preprocess.audio import log_mel
from autoglm_training.speech import synth
from autoglm_training.speech.alphabet import Alphabet, edit_distance, spoken_form
from autoglm_training.speech.augment import add_noise, augment, mask_mel, surround_with_silence
from autoglm_training.speech.batches import LengthBatches, MelBatch, ctc_loss, mel_batch
from autoglm_training.speech.clips import Clip, Line, build_shard, load_shard
from autoglm_training.speech.export import export_speech
from autoglm_training.speech.heads import IntentHead, NamedHead
from autoglm_training.speech.heard import HeardClips, bind_embeddings, build_heard, heard_ids
from autoglm_training.speech.practice import command_line, practice_line, task_line
from autoglm_training.speech.synth import SynthesisError, Voice, random_voice, synthesise
from autoglm_training.speech.token_stage import Pieces, merge_repeats, num_tokens

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
SMALL = SpeechConfig(
    num_mels=80, hidden_size=24, num_layers=1, num_heads=2, intermediate_size=32, frames_per_token=4, out_hidden_size=16
)
VOICE = Voice(accent="en-us", speaker="m1", words_per_min=160, pitch=50)


def small_encoder() -> SpeechEncoder:
    torch.manual_seed(0)
    return SpeechEncoder(SMALL).eval()


def word_tokenizer(texts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def noise_wave(num_samples: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(num_samples).astype(np.float32) * 0.1


def noise_clip(num_samples: int, text: str = "go back") -> Clip:
    samples = (noise_wave(num_samples) * 32767).clip(-32768, 32767).astype(np.int16)
    return Clip(line=Line(text=text), voice=VOICE, samples_T=samples)


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Open Wi-Fi!", "open wi fi"),
        ("Date & Time", "date and time"),
        ("打开 QQ 音乐。", "打开qq音乐"),
        ("Let's wait 5 s", "let's wait 5 s"),
    ],
)
def test_the_spoken_form_keeps_what_is_heard(text: str, spoken: str) -> None:
    assert spoken_form(text) == spoken


def test_the_alphabet_reads_back_what_it_wrote() -> None:
    alphabet = Alphabet.of_texts(["打开微信", "OK"])
    classes = [c for symbol in alphabet.encode("打开 weixin") for c in (symbol, symbol, 0)]
    assert alphabet.decode_greedy(classes) == "打开weixin"


def test_a_double_letter_needs_a_blank_between() -> None:
    alphabet = Alphabet.of_texts([])
    o = alphabet.encode("o")[0]
    assert alphabet.decode_greedy([o, o]) == "o"
    assert alphabet.decode_greedy([o, 0, o]) == "oo"


@pytest.mark.parametrize(("a", "b", "distance"), [("", "abc", 3), ("kitten", "sitting", 3), ("x", "x", 0)])
def test_edit_distance(a: str, b: str, distance: int) -> None:
    assert edit_distance(a, b) == edit_distance(b, a) == distance


@pytest.mark.parametrize("snr_db", [10.0, 40.0])
def test_noise_has_the_asked_level(snr_db: float) -> None:
    wave = np.sin(np.arange(16_000) * 0.2).astype(np.float32)
    noise = add_noise(wave, snr_db, np.random.default_rng(1)) - wave
    assert 10 * np.log10(np.mean(wave**2) / np.mean(noise**2)) == pytest.approx(snr_db, abs=0.1)


def test_silence_only_surrounds() -> None:
    wave = noise_wave(4_000)
    padded = surround_with_silence(wave, np.random.default_rng(0))
    start = int(np.flatnonzero(padded)[0])
    np.testing.assert_array_equal(padded[start : start + 4_000], wave)


@pytest.mark.parametrize("seed", range(12))
def test_distorted_clips_stay_sound(seed: int) -> None:
    out = augment(noise_wave(12_000), np.random.default_rng(seed))
    assert out.dtype == np.float32
    assert 0 < np.abs(out).max() <= 1
    assert 0.85 * 12_000 < len(out) < 1.15 * 12_000 + 0.8 * 16_000


def test_masks_leave_the_original_alone() -> None:
    mel = np.random.default_rng(0).standard_normal((100, 80)).astype(np.float32)
    kept = mel.copy()
    for seed in range(5):
        assert mask_mel(mel, np.random.default_rng(seed)).shape == mel.shape
    np.testing.assert_array_equal(mel, kept)


def test_test_speakers_are_never_trained_on() -> None:
    rng = random.Random(0)
    trained = {random_voice(rng, "train").speaker for _ in range(500)}
    tested = {random_voice(rng, "test").speaker for _ in range(500)}
    assert trained
    assert not trained & tested


@pytest.mark.parametrize("source", [practice_line, command_line, task_line])
def test_lines_are_drawn_again_from_their_seed(source) -> None:
    assert source(random.Random(5), "train") == source(random.Random(5), "train")


def test_a_spoken_task_can_be_spoken() -> None:
    for seed in range(20):
        task = task_line(random.Random(seed), "test").task
        assert task is not None
        assert task.speakable


def test_missing_espeak_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synth.shutil, "which", lambda _: None)
    with pytest.raises(SynthesisError, match="apt-get install espeak-ng"):
        synthesise("go back", VOICE)


def test_nothing_to_speak_is_an_error() -> None:
    with pytest.raises(SynthesisError, match="nothing to speak"):
        synthesise(" ", VOICE)


@needs_espeak
def test_chinese_and_english_are_spoken() -> None:
    english, chinese, mixed = (synthesise(text, VOICE) for text in ("go back", "打开微信", "打开QQ音乐"))
    for samples in (english, chinese, mixed):
        assert samples.dtype == np.int16
        assert 0.4 < len(samples) / 16_000 < 4
        assert np.abs(samples.astype(int)).max() > 1_000
    assert len(mixed) > len(chinese)


@needs_espeak
def test_a_shard_comes_back_as_it_was_spoken(tmp_path: Path) -> None:
    path = tmp_path / "tasks-test-000.npz"
    build_shard(path, task_line, "test", 0, num_clips=3)
    clips = load_shard(path)
    assert len(clips) == 3
    assert all(len(clip.samples_T) > 3_000 for clip in clips)
    assert clips[0].line == task_line(random.Random("test/0"), "test")


def test_batches_hold_like_lengths_and_respect_the_limit() -> None:
    clips = [noise_clip(1_600 * n) for n in range(5, 45)]
    batches = LengthBatches(clips, batch_seconds=3, seed=0)
    for _ in range(20):
        lengths = [len(clip.samples_T) for clip in batches.next(max_clip_s=3.0)]
        assert max(lengths) < 3.0 * 16_000
        assert max(lengths) <= min(lengths) * 3


def test_batches_go_on_in_the_middle_of_a_pass() -> None:
    clips = [noise_clip(1_600 * n) for n in range(5, 45)]
    whole = LengthBatches(clips, batch_seconds=3, seed=0)
    expected = [whole.next(max_clip_s=2.0 + step / 10) for step in range(12)]
    first = LengthBatches(clips, batch_seconds=3, seed=0)
    for step in range(5):
        first.next(max_clip_s=2.0 + step / 10)
    resumed = LengthBatches(clips, batch_seconds=3, seed=0, start=first.taken)
    assert [resumed.next(max_clip_s=2.0 + step / 10) for step in range(5, 12)] == expected[5:]


def test_clips_that_are_all_too_long_are_named() -> None:
    with pytest.raises(ValueError, match=r"none of 1 clips is shorter than 0\.1 s"):
        LengthBatches([noise_clip(9_000)], batch_seconds=3, seed=0).next(max_clip_s=0.1)


def test_padding_does_not_change_frames() -> None:
    encoder = small_encoder()
    mels = [log_mel(noise_wave(num), 80) for num in (8_000, 13_000, 16_001)]
    batch = mel_batch(mels)
    together = encoder.encode_frames(batch.mel_BFC, batch.num_frames_B)
    for mel, frames_SD, steps in zip(mels, together, batch.num_steps_B.tolist(), strict=True):
        alone = mel_batch([mel])
        expected = encoder.encode_frames(alone.mel_BFC, alone.num_frames_B)[0]
        torch.testing.assert_close(frames_SD[:steps], expected, atol=1e-5, rtol=0)


def test_the_projector_makes_as_many_tokens_as_are_counted() -> None:
    encoder = small_encoder()
    for num_samples in (8_000, 8_160, 9_120, 16_001):
        batch: MelBatch = mel_batch([log_mel(noise_wave(num_samples), 80)])
        tokens = encoder.project(encoder.encode_frames(batch.mel_BFC, batch.num_frames_B))
        assert tokens.shape[1] == int(num_tokens(batch)[0])


def test_ctc_learns_a_tiny_corpus() -> None:
    encoder, alphabet = small_encoder().train(), Alphabet.of_texts([])
    head = NamedHead(24, alphabet.characters)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=3e-3)
    tone = np.sin(np.arange(12_000) * 0.3).astype(np.float32)
    batch = mel_batch([np.random.default_rng(i).standard_normal((75, 80)).astype(np.float32) for i in range(2)])
    assert len(tone) // 160 == 75
    losses = []
    for _ in range(60):
        logits = head(encoder.encode_frames(batch.mel_BFC, batch.num_frames_B))
        loss = ctc_loss(logits, batch.num_steps_B, [alphabet.encode("go"), alphabet.encode("back")])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_a_head_of_other_classes_is_refused() -> None:
    old, new = NamedHead(4, ["a", "b"]), NamedHead(4, ["b", "c"])
    with pytest.raises(ValueError, match="3 classes"):
        new.load_state_dict(old.state_dict())


def test_pieces_read_back_the_spoken_form() -> None:
    texts = ["go back", "打开微信", "back to the top"]
    pieces = Pieces(word_tokenizer(texts), texts)
    assert pieces.decode(pieces.encode("Go back!")) == "go back"
    assert pieces.decode(pieces.encode("打开微信。")) == "打开微信"
    assert len(pieces.names) == len(pieces.ids)


def test_repeats_merge_unless_a_blank_parts_them() -> None:
    assert merge_repeats([0, 3, 3, 0, 3, 5, 5, 0]) == [3, 3, 5]


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tasks-train-000.npz"
    path.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match=r"tasks-train-000.npz is damaged"):
        load_shard(path)


def spelling_encoder(num_pieces: int = 6) -> SpeechEncoder:
    torch.manual_seed(0)
    return SpeechEncoder(replace(SMALL, num_pieces=num_pieces)).eval()


@pytest.mark.parametrize(
    ("best", "heard"),
    [
        ([0, 0, 0, 0], [0, 0, 0, 0]),
        ([3, 3, 0, 3], [0, 0, 3, 3]),
        ([2, 0, 0, 5], [0, 0, 2, 5]),
        ([1, 2, 2, 4], [0, 1, 2, 4]),
    ],
)
def test_heard_pieces_stand_after_the_empty_slots(best: list[int], heard: list[int]) -> None:
    encoder = spelling_encoder()
    with torch.no_grad():
        encoder.piece_head.weight.zero_()[:, :7] = torch.eye(7)
        encoder.piece_head.bias.zero_()
    tokens = torch.nn.functional.one_hot(torch.tensor([best]), 16).float()
    assert encoder.hear(tokens).tolist() == [heard]


def test_a_spelling_encoder_answers_with_embeddings_of_pieces() -> None:
    encoder = spelling_encoder()
    tokens = encoder(torch.randn(1, 61, 80))[0]
    assert tokens.shape == (SMALL.num_tokens(61), 16)
    rows = encoder.piece_embedding.weight
    assert all(any(torch.equal(token, row) for row in rows) for token in tokens)


def test_heard_ids_are_those_of_the_served_tokens() -> None:
    encoder, piece_ids = spelling_encoder(), torch.arange(100, 107)
    bind_embeddings(encoder, piece_ids, torch.randn(200, 16))
    wave = noise_wave(9_000)
    ids = heard_ids(encoder, piece_ids, [wave, noise_wave(12_000)])[0]
    served = encoder(torch.from_numpy(log_mel(wave, 80))[None])[0]
    assert torch.equal(encoder.piece_embedding(torch.tensor(ids) - 100), served)


def test_a_spelling_encoder_survives_its_export(tmp_path: Path) -> None:
    encoder = spelling_encoder()
    export_speech(encoder, tmp_path)
    loaded = load_speech_encoder(tmp_path)
    assert loaded is not None
    assert loaded.config.num_pieces == 6
    assert torch.allclose(loaded.piece_head.weight, encoder.piece_head.weight, atol=1e-2)


@needs_espeak
def test_heard_clips_come_with_their_tasks(tmp_path: Path) -> None:
    encoder, shard = spelling_encoder(), tmp_path / "tasks-test-000.npz"
    build_shard(shard, task_line, "test", 0, num_clips=3)
    build_heard(encoder, torch.arange(7), [shard], tmp_path / "heard-test.jsonl", "test")
    clips, rng = HeardClips("test", tmp_path), random.Random(0)
    assert len(clips) == 3
    for task, ids in (clips.pick(rng) for _ in range(6)):
        assert task.speakable
        assert set(ids) <= set(range(7))


def test_the_intent_of_a_padded_clip_is_that_of_the_clip() -> None:
    torch.manual_seed(0)
    head = IntentHead(16, 5)
    tokens = torch.randn(1, 6, 16)
    alone = head(tokens[:, :4], torch.tensor([4]))
    assert torch.allclose(head(tokens, torch.tensor([4])), alone, atol=1e-6)


def test_the_sidecar_loads_what_was_exported(tmp_path: Path) -> None:
    encoder = small_encoder()
    export_speech(encoder, tmp_path)
    loaded = load_speech_encoder(tmp_path)
    assert loaded is not None
    assert loaded.config == SMALL
    mel = torch.randn(1, 40, 80)
    assert torch.allclose(loaded(mel), encoder(mel), atol=0.05)
    assert not loaded.training


def test_no_sidecar_is_no_encoder(tmp_path: Path) -> None:
    assert load_speech_encoder(tmp_path) is None


@pytest.mark.parametrize("name", ["speech_config.json", "speech.safetensors"])
def test_half_a_sidecar_is_an_error(tmp_path: Path, name: str) -> None:
    export_speech(small_encoder(), tmp_path)
    (tmp_path / "speech" / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load_speech_encoder(tmp_path)


def test_a_sidecar_of_another_shape_is_an_error(tmp_path: Path) -> None:
    export_speech(small_encoder(), tmp_path)
    config = tmp_path / "speech" / "speech_config.json"
    config.write_text(config.read_text().replace('"intermediate_size": 32', '"intermediate_size": 48'))
    with pytest.raises(CheckpointError, match="asks for"):
        load_speech_encoder(tmp_path)

"""`train-exits` and `calibrate` from end to end on a random GLM-4.1V checkpoint, and what they refuse."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.tiny_checkpoint import EXITS, write_checkpoint

from autoglm_backend.models.certificate import check_certificate, load_certificate
from autoglm_backend.models.config import load_model_config
from autoglm_backend.models.exits import load_exit_heads
from autoglm_backend.models.gates import load_gates
from autoglm_backend.models.router import load_router
from autoglm_training.exits import calibrate_command, train_exits_command
from autoglm_training.exits.decoding import decode
from autoglm_training.exits.gates import fit_probe
from autoglm_training.exits.heads import Streams as ExitStreams
from autoglm_training.exits.heads import agreement, default_depths, draft_vocabulary
from autoglm_training.exits.prompts import DataError, read_prompts
from autoglm_training.loading import load_checkpoint

NEW_TOKENS = "6"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint without exits, after both commands."""
    folder = tmp_path_factory.mktemp("exits")
    directory = write_checkpoint(folder / "checkpoint")
    shutil.rmtree(directory / "exits")
    before = _digest(directory / "model.safetensors")
    data = folder / "prompts.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"open app {n}"}) + "\n" for n in range(240)), encoding="utf-8")
    common = ["--checkpoint", str(directory), "--data", str(data), "--max-tokens", NEW_TOKENS, "--threads", "1"]
    common += ["--device", "cpu"]
    assert train_exits_command.main([*common, "--epochs", "4", "--draft-coverage", "0.9"]) == 0
    assert calibrate_command.main(common) == 0
    assert _digest(directory / "model.safetensors") == before
    return directory


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_exits_stand_at_quarters_of_the_depth(trained: Path) -> None:
    heads = load_exit_heads(trained, load_model_config(trained).text)
    assert heads is not None
    assert heads.depths == default_depths(24) == EXITS


def test_training_brings_exits_nearer_to_full_depth(trained: Path) -> None:
    loaded = load_checkpoint(trained)
    prompts = read_prompts(_prompt_file(trained, ["open app 7", "open app 200"]), loaded, skip_bad=False)
    traces = decode(loaded.decoder, prompts, loaded.eos_ids, watch=(*EXITS, 24), max_tokens=6)
    states = torch.cat([torch.from_numpy(trace.streams_TED) for trace in traces])
    streams = ExitStreams(exits_NED=states[:, :-1], final_ND=loaded.decoder.norm(states[:, -1]))
    assert loaded.exits is not None
    bare = type(loaded.exits)(loaded.config.text, EXITS, 64)
    after, before = (agreement(loaded.decoder, heads, streams) for heads in (loaded.exits, bare))
    assert sum(after.values()) > sum(before.values())


def test_certificate_fits_the_checkpoint_it_lies_in(trained: Path) -> None:
    certificate = load_certificate(trained)
    assert certificate is not None
    check_certificate(certificate, trained, dtype="float32", quantization="none")
    assert certificate.num_requests == 156
    assert certificate.num_mismatches <= 0.02 * certificate.num_requests


def test_gates_and_router_are_there_to_be_loaded(trained: Path) -> None:
    gates = load_gates(trained, 48, EXITS)
    router = load_router(trained, 48, EXITS)
    assert gates is not None
    assert gates.depths == EXITS
    assert router is not None
    assert router.depth == EXITS[0]


def test_draft_vocabulary_holds_stop_tokens_and_what_is_said_most(trained: Path) -> None:
    loaded = load_checkpoint(trained)
    prompts = read_prompts(_prompt_file(trained, ["a", "b", "c"]), loaded, skip_bad=False)
    traces = decode(loaded.decoder, prompts, loaded.eos_ids, max_tokens=6)
    everything = draft_vocabulary(traces, loaded.eos_ids, 1.0)
    assert set(everything) == {token for trace in traces for token in trace.ids} | loaded.eos_ids
    assert loaded.eos_ids <= set(draft_vocabulary(traces, loaded.eos_ids, 0.1)) < set(everything)


def _prompt_file(folder: Path, texts: list[str]) -> Path:
    path = folder / "some.jsonl"
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts), encoding="utf-8")
    return path


BAD_LINES = '{"prompt": "good"}\nnot json\n{"messages": []}\n{"prompt": "a", "messages": []}\n{"prompt": "fine"}\n'


def test_unreadable_lines_are_refused_by_number(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(BAD_LINES, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_prompts(path, load_checkpoint(trained), skip_bad=False)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{path}:2", f"{path}:3", f"{path}:4"]


def test_unreadable_lines_are_skipped_and_named(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(BAD_LINES, encoding="utf-8")
    said: list[str] = []
    prompts = read_prompts(path, load_checkpoint(trained), skip_bad=True, say=said.append)
    assert len(prompts) == 2
    assert [line.split(": ")[0] for line in said] == [f"skipped {path}:{number}" for number in (2, 3, 4)]


def test_a_picture_that_is_not_there_names_its_line(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "picture.jsonl"
    part = {"type": "image_url", "image_url": {"url": "nowhere.png"}}
    path.write_text(json.dumps({"messages": [{"role": "user", "content": [part]}]}) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"picture.jsonl:1: .*nowhere.png"):
        read_prompts(path, load_checkpoint(trained), skip_bad=False)


def test_too_few_requests_for_a_promise_end_in_one_line(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _prompt_file(tmp_path, ["a", "b", "c"])
    arguments = ["--checkpoint", str(trained), "--data", str(data), "--device", "cpu", "--threads", "1"]
    assert calibrate_command.main(arguments) == 1
    assert "at least 149 are needed" in capsys.readouterr().err


def test_a_probe_finds_the_direction_that_separates() -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(400, 5, generator=generator) * torch.tensor([1.0, 10.0, 1.0, 0.1, 1.0])
    labels = (features[:, 1] > 3).float()
    weight, bias = fit_probe(features, labels, generator)
    guessed = torch.sigmoid(features @ weight + bias) > 0.5
    assert (guessed == labels.bool()).float().mean() > 0.97

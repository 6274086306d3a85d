"""`train-exits` and `calibrate` from end to end on a random GLM-4.1V checkpoint, and what they refuse."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tests.tiny_checkpoint import EXITS, write_checkpoint

from autoglm_backend.models.certificate import check_certificate, load_certificate
from autoglm_backend.models.config import CheckpointError, load_model_config
from autoglm_backend.models.exits import load_exit_heads
from autoglm_backend.models.gates import gate_tensors, load_gates
from autoglm_backend.models.router import load_router
from autoglm_training.exits import calibrate_command, train_exits_command
from autoglm_training.exits.decoding import decode
from autoglm_training.exits.gates import fit_probe
from autoglm_training.exits.heads import Streams as ExitStreams
from autoglm_training.exits.heads import agreement, default_depths, draft_vocabulary
from autoglm_training.exits.prompts import read_prompts
from autoglm_training.loading import load_checkpoint

NEW_TOKENS = "6"
CPU = ["--device", "cpu", "--threads", "1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint without exits, after both commands."""
    folder = tmp_path_factory.mktemp("exits")
    directory = write_checkpoint(folder / "checkpoint")
    shutil.rmtree(directory / "exits")
    before = _digest(directory / "model.safetensors")
    data = folder / "prompts.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"open app {n}"}) + "\n" for n in range(240)), encoding="utf-8")
    common = ["--checkpoint", str(directory), "--data", str(data), "--max-tokens", NEW_TOKENS, *CPU]
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


def test_the_certificate_says_how_much_of_an_answer_was_compared(trained: Path) -> None:
    certificate = load_certificate(trained)
    assert certificate is not None
    assert certificate.max_tokens == int(NEW_TOKENS)


def test_a_second_training_says_that_the_certificate_is_of_other_exits(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = _copy(trained, tmp_path)
    data = _prompt_file(tmp_path, [f"open {n}" for n in range(12)])
    arguments = ["--checkpoint", str(directory), "--data", str(data), *CPU, "--epochs", "1", "--depths", "4", "8"]
    assert train_exits_command.main([*arguments, "--max-tokens", "2"]) == 0
    assert "made for other exits" in capsys.readouterr().err
    assert load_checkpoint(directory).exits is not None
    certificate = load_certificate(directory)
    assert certificate is not None
    with pytest.raises(CheckpointError, match="checkpoint_sha256"):
        check_certificate(certificate, directory, dtype="float32", quantization="none")


def test_calibrating_with_int8_measures_int8_and_is_refused_for_other_weights(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = _copy(trained, tmp_path)
    data = _prompt_file(tmp_path, [f"open app {n}" for n in range(240)])
    arguments = ["--checkpoint", str(directory), "--data", str(data), "--max-tokens", "2", *CPU]
    assert calibrate_command.main(arguments) == 0
    plain = load_gates(directory, 48, EXITS)
    capsys.readouterr()
    assert calibrate_command.main([*arguments, "--quantization", "int8"]) == 0
    certificate, rounded = load_certificate(directory), load_gates(directory, 48, EXITS)
    assert certificate is not None
    assert plain is not None
    assert rounded is not None
    assert not torch.equal(gate_tensors(plain)["6.weight"], gate_tensors(rounded)["6.weight"])
    check_certificate(certificate, directory, dtype="float32", quantization="int8")
    with pytest.raises(CheckpointError, match="quantization was int8"):
        check_certificate(certificate, directory, dtype="float32", quantization="none")
    router = load_router(directory, 48, EXITS)
    assert router is not None
    sent = round(router.share * 156)
    assert f"router: {sent} of 156 requests end at depth 6 " in (said := capsys.readouterr().out)
    assert f"{router.num_mismatches} of 156 differ" in said


def test_too_few_requests_end_in_one_line_and_change_nothing(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = _copy(trained, tmp_path)
    before = _exit_files(directory)
    data = _prompt_file(tmp_path, ["a", "b", "c"])
    assert calibrate_command.main(["--checkpoint", str(directory), "--data", str(data), *CPU]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "2 requests cannot certify a risk of 0.02 with error 0.05: at least 149 are needed" in line
    assert _exit_files(directory) == before


def test_too_few_requests_are_refused_before_the_checkpoint_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate_command.main(["--checkpoint", "nowhere", "--requests", "228", *CPU]) == 1
    assert "148 requests cannot certify" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (calibrate_command, ["--epsilon", "1.5"]),
        (calibrate_command, ["--epsilon", "0"]),
        (calibrate_command, ["--delta", "0"]),
        (calibrate_command, ["--delta", "1"]),
        (calibrate_command, ["--delta", "nan"]),
        (calibrate_command, ["--requests", "0"]),
        (calibrate_command, ["--max-tokens", "0"]),
        (calibrate_command, ["--threads", "0"]),
        (calibrate_command, ["--seed", "-1"]),
        (calibrate_command, ["--device", "tpu"]),
        (calibrate_command, ["--device", "cuda:99"]),
        (calibrate_command, ["--quantization", "nonsense"]),
        (calibrate_command, ["--quantization", "auto"]),
        (train_exits_command, ["--draft-coverage", "5"]),
        (train_exits_command, ["--draft-coverage", "-1"]),
        (train_exits_command, ["--epochs", "0"]),
        (train_exits_command, ["--adapter-size", "0"]),
        (train_exits_command, ["--depths", "0"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_option_out_of_range_is_refused_by_name(
    command: ModuleType, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        command.main(["--checkpoint", "nowhere", "--data", "nowhere.jsonl", *options])
    assert left.value.code == 2
    assert f"argument {options[0]}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("depths", "complaint"), [(["6", "12", "6"], "names 6 twice"), (["6", "24"], "names 24, .* between 1 and 23")]
)
def test_depths_that_cannot_be_are_refused_before_any_work(
    trained: Path, depths: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--checkpoint", str(trained), "--data", "nowhere.jsonl", *CPU]
    assert train_exits_command.main([*arguments, "--depths", *depths]) == 1
    assert re.search(f"--depths {complaint}", capsys.readouterr().err)


def _copy(trained: Path, folder: Path) -> Path:
    return Path(shutil.copytree(trained, folder / "checkpoint"))


def _exit_files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / "exits").iterdir()}


def test_a_probe_finds_the_direction_that_separates() -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(400, 5, generator=generator) * torch.tensor([1.0, 10.0, 1.0, 0.1, 1.0])
    labels = (features[:, 1] > 3).float()
    weight, bias = fit_probe(features, labels, generator)
    guessed = torch.sigmoid(features @ weight + bias) > 0.5
    assert (guessed == labels.bool()).float().mean() > 0.97

"""Gates, certificates and draft vocabularies as files: strict to read, and a certificate for nothing but its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.random_checkpoint import Shape, random_checkpoint

from autoglm_backend.models.certificate import Certificate, checkpoint_sha256, load_certificate
from autoglm_backend.models.config import CheckpointError, TextConfig, load_model_config
from autoglm_backend.models.exits import load_draft_vocab
from autoglm_backend.models.gates import ExitGates, gate_description, gate_tensors, load_gates, margin_features

CERTIFICATE = Certificate(
    risk="parsed action differs from full depth",
    delta=0.02,
    epsilon=0.05,
    num_requests=500,
    num_mismatches=2,
    max_tokens=64,
    dtype="float32",
    quantization="none",
    checkpoint_sha256="ab" * 32,
    thresholds={6: 0.97, 12: 1.0},
    mean_layers=12.3,
    made={"seed": 3},
)


def write_gates(directory: Path, gates: ExitGates, **changes: object) -> None:
    (directory / "exits").mkdir(exist_ok=True)
    (directory / "exits" / "gates.json").write_text(json.dumps({**gate_description(gates), **changes}))
    save_file(gate_tensors(gates), directory / "exits" / "gates.safetensors")


def random_gates(*, uses_margin: bool) -> ExitGates:
    gates = ExitGates((6, 12), 16, uses_margin=uses_margin)
    for parameter in gates.parameters():
        torch.nn.init.normal_(parameter)
    return gates


@pytest.mark.parametrize("uses_margin", [False, True])
def test_gates_survive_their_files_and_are_the_documented_formula(tmp_path: Path, uses_margin: bool) -> None:
    write_gates(tmp_path, random_gates(uses_margin=uses_margin))
    gates = load_gates(tmp_path, 16, (6, 12, 18))
    assert gates is not None
    states, logits = torch.randn(5, 16), torch.randn(5, 40)
    tensors = gate_tensors(gates)
    score = states @ tensors["12.weight"] + tensors["12.bias"]
    if uses_margin:
        ordered = torch.log_softmax(logits, -1).sort(descending=True).values
        score += torch.stack((ordered[:, 0], ordered[:, 0] - ordered[:, 1]), -1) @ tensors["12.margin"]
    torch.testing.assert_close(gates(12, states, logits), torch.sigmoid(score))


def test_margin_features_do_not_depend_on_a_constant_in_the_logits() -> None:
    logits = torch.randn(3, 9)
    torch.testing.assert_close(margin_features(logits), margin_features(logits + 7.0))


def test_a_checkpoint_without_gates_has_none(tmp_path: Path) -> None:
    assert load_gates(tmp_path, 16, (6,)) is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"depths": [6, 7]}, "depths names 7"),
        ({"depths": []}, "depths is"),
        ({"uses_margin": 1}, "uses_margin is 1"),
        ({"uses_margin": True}, "missing"),
    ],
)
def test_gates_that_do_not_fit_name_file_and_field(tmp_path: Path, changes: dict[str, object], named: str) -> None:
    write_gates(tmp_path, random_gates(uses_margin=False), **changes)
    with pytest.raises(CheckpointError, match=named):
        load_gates(tmp_path, 16, (6, 12))


def test_a_certificate_survives_its_file(tmp_path: Path) -> None:
    (tmp_path / "exits").mkdir()
    (tmp_path / "exits" / "certificate.json").write_text(json.dumps(CERTIFICATE.to_json()))
    assert load_certificate(tmp_path) == CERTIFICATE


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"delta": None}, "delta is None"),
        ({"epsilon": 1.5}, "epsilon is 1.5"),
        ({"thresholds": {"six": 0.9}}, "thresholds is"),
        ({"thresholds": {"6": -1}}, "thresholds is"),
        ({"num_requests": -1}, "num_requests is -1"),
        ({"surprise": 1}, "surprise is not a field"),
    ],
)
def test_a_senseless_certificate_names_its_field(changes: dict[str, object], named: str) -> None:
    with pytest.raises(CheckpointError, match=f"c.json: {named}"):
        Certificate.from_json({**CERTIFICATE.to_json(), **changes}, "c.json")


def test_a_certificate_without_a_field_names_it() -> None:
    raw = CERTIFICATE.to_json()
    del raw["dtype"]
    with pytest.raises(CheckpointError, match="dtype is missing"):
        Certificate.from_json(raw, "c.json")


def test_the_hash_covers_names_and_bytes_of_weights_exits_and_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "exits").mkdir()
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "exits" / "exits.safetensors").write_bytes(b"exits")
    hashes = [checkpoint_sha256(tmp_path)]
    (tmp_path / "README.md").write_text("not part of it")
    assert checkpoint_sha256(tmp_path) == hashes[0]
    (tmp_path / "model.safetensors").write_bytes(b"Weights")
    hashes.append(checkpoint_sha256(tmp_path))
    (tmp_path / "exits" / "exits.safetensors").rename(tmp_path / "exits" / "gates.safetensors")
    hashes.append(checkpoint_sha256(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{ }")
    hashes.append(checkpoint_sha256(tmp_path))
    assert len(set(hashes)) == 4


@pytest.fixture(scope="module")
def text_config(tmp_path_factory: pytest.TempPathFactory) -> TextConfig:
    directory = tmp_path_factory.mktemp("checkpoint")
    random_checkpoint(directory, Shape())
    return load_model_config(directory).text


@pytest.mark.parametrize(
    "ids", [torch.tensor([1, 97]), torch.tensor([1, 1]), torch.tensor([1.0]), torch.empty(0, dtype=torch.int64)]
)
def test_a_draft_vocabulary_that_is_none_is_refused(tmp_path: Path, text_config: TextConfig, ids: torch.Tensor) -> None:
    (tmp_path / "exits").mkdir()
    save_file({"ids": ids}, tmp_path / "exits" / "draft_vocab.safetensors")
    with pytest.raises(CheckpointError, match=r"draft_vocab.safetensors: ids must be"):
        load_draft_vocab(tmp_path, text_config)

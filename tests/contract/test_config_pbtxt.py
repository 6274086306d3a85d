"""config.pbtxt says what protocol/tensors.py says."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from autoglm_protocol.tensors import CONTRACTS, ModelContract, TensorSpec

REPOSITORY = Path(__file__).parents[2] / "model_repository"


def config_of(model: str) -> model_config_pb2.ModelConfig:
    text = (REPOSITORY / model / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def in_pbtxt(spec: TensorSpec) -> tuple[str, str, tuple[int, ...], bool]:
    kind = "TYPE_STRING" if spec.dtype == "BYTES" else f"TYPE_{spec.dtype}"
    return spec.name, kind, spec.dims, spec.optional


def type_name(value: int) -> str:
    return model_config_pb2.DataType.Name(value)


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: c.model)
def test_inputs_equal_the_contract(contract: ModelContract) -> None:
    written = [(t.name, type_name(t.data_type), tuple(t.dims), t.optional) for t in config_of(contract.model).input]
    assert written == [in_pbtxt(spec) for spec in contract.inputs]


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: c.model)
def test_outputs_equal_the_contract(contract: ModelContract) -> None:
    written = [(t.name, type_name(t.data_type), tuple(t.dims), False) for t in config_of(contract.model).output]
    assert written == [in_pbtxt(spec) for spec in contract.outputs]


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: c.model)
def test_name_batching_and_transaction_policy_equal_the_contract(contract: ModelContract) -> None:
    config = config_of(contract.model)
    assert config.name == contract.model
    assert config.backend == "python"
    assert config.max_batch_size == 0
    assert config.model_transaction_policy.decoupled == contract.decoupled


def test_every_model_of_the_repository_has_a_contract() -> None:
    assert {path.parent.name for path in REPOSITORY.glob("*/config.pbtxt")} == {c.model for c in CONTRACTS}


def test_every_model_enters_the_environment_before_any_import() -> None:
    for path in REPOSITORY.glob("*/1/model.py"):
        lines = [line for line in path.read_text(encoding="utf-8").splitlines()[1:] if line]
        assert lines[:2] == ["import autoglm_site", "autoglm_site.activate()"], path

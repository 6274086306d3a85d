"""The exit sidecars of a checkpoint, written atomically; the backbone's files are never touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from autoglm_backend.models.certificate import CERTIFICATE_JSON, Certificate
from autoglm_backend.models.exits import ExitHeads, exit_tensors
from autoglm_backend.models.gates import GATES_JSON, GATES_TENSORS, ExitGates, gate_description, gate_tensors
from autoglm_training.files import save_json, save_tensors

FOLDER = "exits"
DRAFT_VOCABULARY = "draft_vocab.safetensors"


def save_exits(directory: Path, heads: ExitHeads, adapter_size: int, *, auto: Mapping[str, int] | None = None) -> None:
    """`exits.safetensors` and `exits.json`. auto: depth by class of request, where it was measured. Raises OSError."""
    fields: dict[str, Any] = {"depths": list(heads.depths), "adapter_size": adapter_size}
    if auto:
        fields["auto"] = dict(auto)
    save_tensors(exit_tensors(heads), directory / FOLDER / "exits.safetensors")
    save_json(fields, directory / FOLDER / "exits.json")


def save_draft_vocabulary(directory: Path, token_ids: Sequence[int]) -> None:
    """The tokens that lossless drafts may be: "ids" int64 [K], ascending. Raises OSError."""
    save_tensors({"ids": torch.tensor(sorted(token_ids))}, directory / FOLDER / DRAFT_VOCABULARY)


def save_gates(directory: Path, gates: ExitGates) -> None:
    """`gates.safetensors` and `gates.json`. A certificate of other gates is refused from here on. Raises OSError."""
    save_tensors(gate_tensors(gates), directory / FOLDER / GATES_TENSORS)
    save_json(gate_description(gates), directory / FOLDER / GATES_JSON)


def save_certificate(directory: Path, certificate: Certificate) -> None:
    """`certificate.json`. Raises OSError."""
    save_json(certificate.to_json(), directory / FOLDER / CERTIFICATE_JSON)

"""The exit sidecars of a checkpoint. Each set is old or new as a whole; the backbone's files are never touched."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from autoglm_backend.models.certificate import CERTIFICATE_JSON, Certificate, checkpoint_sha256
from autoglm_backend.models.exits import EXITS_JSON, EXITS_TENSORS, ExitHeads, exit_tensors
from autoglm_backend.models.gates import GATES_JSON, GATES_TENSORS, ExitGates, gate_description, gate_tensors
from autoglm_backend.models.json_table import CheckpointError, read_json_object
from autoglm_backend.models.router import ROUTER_JSON, ROUTER_TENSORS, Router
from autoglm_training.files import save_json, save_tensors

FOLDER = "exits"
DRAFT_VOCABULARY = "draft_vocab.safetensors"
STAGED = "calibration.partial"
CALIBRATED = (GATES_TENSORS, GATES_JSON, ROUTER_TENSORS, ROUTER_JSON, CERTIFICATE_JSON)
"""In the order in which they are moved into place: what promises something comes last."""


def save_exits(directory: Path, heads: ExitHeads, adapter_size: int, *, auto: Mapping[str, int] | None = None) -> None:
    """Weights, then the description that names their file: until that is replaced the exits are the old ones, whole.

    auto: depth by class of request, where it was measured. Raises OSError.
    """
    folder = directory / FOLDER
    name = next(name for name in EXITS_TENSORS if name != _weights_in_use(folder))
    fields: dict[str, Any] = {"depths": list(heads.depths), "adapter_size": adapter_size, "weights": name}
    if auto:
        fields["auto"] = dict(auto)
    save_tensors(exit_tensors(heads), folder / name)
    save_json(fields, folder / EXITS_JSON)
    for other in EXITS_TENSORS:
        if other != name:
            (folder / other).unlink(missing_ok=True)


def _weights_in_use(folder: Path) -> str | None:
    try:
        return read_json_object(folder / EXITS_JSON).get("weights") or EXITS_TENSORS[0]
    except CheckpointError:  # there are none, or none that anyone could read
        return None


def save_draft_vocabulary(directory: Path, token_ids: Sequence[int]) -> None:
    """The tokens that lossless drafts may be: "ids" int64 [K], ascending. Raises OSError."""
    save_tensors({"ids": torch.tensor(sorted(token_ids))}, directory / FOLDER / DRAFT_VOCABULARY)


def save_gates(directory: Path, gates: ExitGates) -> None:
    """`gates.safetensors` and `gates.json`. A certificate of other gates is refused from here on. Raises OSError."""
    save_tensors(gate_tensors(gates), directory / FOLDER / GATES_TENSORS)
    save_json(gate_description(gates), directory / FOLDER / GATES_JSON)


def save_router(directory: Path, router: Router) -> None:
    """`router.safetensors` and `router.json`. A certificate of another one is refused from here on. Raises OSError."""
    fields = {name: value for name, value in asdict(router).items() if name not in ("weight_D", "bias")}
    tensors = {"weight": router.weight_D.float().contiguous(), "bias": router.bias.float()}
    save_tensors(tensors, directory / FOLDER / ROUTER_TENSORS)
    save_json(fields, directory / FOLDER / ROUTER_JSON)


def save_certificate(directory: Path, certificate: Certificate) -> None:
    """`certificate.json`. Raises OSError."""
    save_json(certificate.to_json(), directory / FOLDER / CERTIFICATE_JSON)


def save_calibration(
    directory: Path, gates: ExitGates, router: Router, certificate_of: Callable[[str], Certificate]
) -> Certificate:
    """Gates, router and the certificate of both: all are written beside the old ones before the first is replaced.

    A kill between the moves leaves a certificate that does not fit and is refused, never one that is wrong.
    certificate_of: takes the checkpoint's hash as it will be. Raises OSError; the old files then stand as they were.
    """
    staged = directory / FOLDER / STAGED
    shutil.rmtree(staged, ignore_errors=True)
    try:
        save_gates(staged, gates)
        save_router(staged, router)
        certificate = certificate_of(checkpoint_sha256(directory, staged))
        save_certificate(staged, certificate)
        for name in CALIBRATED:
            (staged / FOLDER / name).replace(directory / FOLDER / name)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return certificate

"""Exit gates: how sure an exit is that full depth would choose the same token.

A gate is a logistic probe on the state that the output head reads (normed and adapted by the exit head), so it costs a
dot product; with `uses_margin` it also looks at the exit's own logits, which costs the output head (on the 9B shape as
much as three layers). Gates stay in float32 at every precision of the decoder, because thresholds are calibrated on
their values. Weights live in the sidecar `exits/gates.safetensors` ("<depth>.weight" [D], "<depth>.bias" [], and
"<depth>.margin" [2] with margins), their description in `exits/gates.json`: {"depths": [6, 12], "uses_margin": false}.

Shape legend: N positions, D hidden, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoglm_backend.models.config import CheckpointError
from autoglm_backend.models.weights import load_module

GATES_JSON = "gates.json"
GATES_TENSORS = "gates.safetensors"


class ExitGate(nn.Module):
    """One exit's probe; an untrained one is undecided (confidence 0.5) about everything."""

    def __init__(self, hidden_size: int, *, uses_margin: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(hidden_size))
        self.bias = nn.Parameter(torch.zeros(()))
        self.margin = nn.Parameter(torch.zeros(2)) if uses_margin else None

    def forward(self, normed_ND: Tensor, logits_NV: Tensor | None) -> Tensor:
        score_N = normed_ND.float() @ self.weight + self.bias
        if self.margin is not None:
            assert logits_NV is not None, "this gate looks at the exit's logits"
            score_N = score_N + margin_features(logits_NV) @ self.margin
        return torch.sigmoid(score_N)


class ExitGates(nn.Module):
    """The gates of a checkpoint's exits."""

    def __init__(self, depths: Sequence[int], hidden_size: int, *, uses_margin: bool) -> None:
        super().__init__()
        self.depths = tuple(sorted(depths))
        self.uses_margin = uses_margin
        self.gates = nn.ModuleDict({str(d): ExitGate(hidden_size, uses_margin=uses_margin) for d in self.depths})

    def forward(self, depth: int, normed_ND: Tensor, logits_NV: Tensor | None = None) -> Tensor:
        """Confidence in 0..1, float32 [N]. `logits_NV` is needed when `uses_margin`."""
        return self.gates[str(depth)](normed_ND, logits_NV)


def margin_features(logits_NV: Tensor) -> Tensor:
    """[N, 2]: log-probability of the best token, and by how much it leads the second."""
    top_N2 = torch.log_softmax(logits_NV.float(), dim=-1).topk(2, dim=-1).values
    return torch.stack((top_N2[:, 0], top_N2[:, 0] - top_N2[:, 1]), dim=-1)


def load_gates(checkpoint_dir: Path, hidden_size: int, exits: Sequence[int]) -> ExitGates | None:
    """The checkpoint's gates, None when it has none. Raises CheckpointError naming file and field."""
    path = checkpoint_dir / "exits" / GATES_JSON
    if not path.exists():
        return None
    depths, uses_margin = _read_description(path)
    for depth in depths:
        if depth not in exits:
            raise CheckpointError(f"{path}: depths names {depth}, the checkpoint's exits are {sorted(exits)}")
    gates = ExitGates(depths, hidden_size, uses_margin=uses_margin)
    load_module(gates, [checkpoint_dir / "exits" / GATES_TENSORS], lambda name: f"gates.{name}")
    return gates.requires_grad_(False)


def gate_tensors(gates: ExitGates) -> dict[str, Tensor]:
    """What `gates.safetensors` holds, float32."""
    return {
        name.removeprefix("gates."): tensor.detach().float().contiguous() for name, tensor in gates.state_dict().items()
    }


def gate_description(gates: ExitGates) -> dict[str, Any]:
    """What `gates.json` holds."""
    return {"depths": list(gates.depths), "uses_margin": gates.uses_margin}


def _read_description(path: Path) -> tuple[list[int], bool]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        depths, uses_margin = raw["depths"], raw["uses_margin"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a description of gates ({error!r})") from error
    if not isinstance(depths, list) or not depths or not all(type(d) is int for d in depths):
        raise CheckpointError(f"{path}: depths is {depths!r}, must be a list of layer counts")
    if not isinstance(uses_margin, bool):
        raise CheckpointError(f"{path}: uses_margin is {uses_margin!r}, must be true or false")
    return depths, uses_margin

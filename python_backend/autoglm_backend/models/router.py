"""The per-request router: may a whole request run at the first exit?

Rules come first (`bls/planner`). Where they say nothing, a logistic probe looks at the prompt's residual stream at the
first exit, averaged over its tokens, which every mode computes anyway. It says "this exit will do what full depth does"
or abstains, which means full depth. `autoglm calibrate` fits it and fixes its threshold like the certificate's.

Sidecar: `exits/router.safetensors` ("weight" [D], "bias" []) and `exits/router.json` with `Router`'s other fields.

Shape legend: N requests, D hidden.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from autoglm_backend.models.config import CheckpointError

ROUTER_JSON = "router.json"
ROUTER_TENSORS = "router.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """`share`: of calibration requests that it sent to `depth`; num_mismatches: those whose action then differed."""

    depth: int
    threshold: float
    delta: float
    epsilon: float
    num_requests: int
    num_mismatches: int
    share: float
    weight_D: Tensor
    """float32, as is the bias: the threshold was calibrated on such values."""
    bias: Tensor

    def confidence(self, pooled_ND: Tensor) -> Tensor:
        """That the exit's action is full depth's, [N] in 0..1, of prompts' mean states at the exit."""
        return torch.sigmoid(pooled_ND.float() @ self.weight_D + self.bias)


def load_router(checkpoint_dir: Path, hidden_size: int, exits: tuple[int, ...]) -> Router | None:
    """The checkpoint's router, None when it has none. Raises CheckpointError naming file and field."""
    path = checkpoint_dir / "exits" / ROUTER_JSON
    if not path.exists():
        return None
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        tensors = load_file(path.with_name(ROUTER_TENSORS))
        router = Router(**raw, weight_D=tensors["weight"].float(), bias=tensors["bias"].float())
    # safetensors' own error is a plain Exception's child.
    except Exception as error:
        raise CheckpointError(f"{path}: not a router ({error!r})") from error
    if router.depth not in exits:
        raise CheckpointError(f"{path}: depth is {router.depth!r}, the checkpoint's exits are {list(exits)}")
    if not isinstance(router.threshold, int | float) or isinstance(router.threshold, bool):
        raise CheckpointError(f"{path}: threshold is {router.threshold!r}, must be a number")
    if router.weight_D.shape != (hidden_size,):
        raise CheckpointError(f"{path}: weight has shape {tuple(router.weight_D.shape)}, must be ({hidden_size},)")
    return router

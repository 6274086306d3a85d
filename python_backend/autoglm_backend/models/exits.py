"""Exit heads: what turns the residual stream at a shallow depth into logits.

Each exit has its own norm and a small gated-free bottleneck adapter, and shares the decoder's output head. The backbone
is never touched, so full depth stays what the checkpoint says. `exits/exits.json` describes them: {"depths": [6, 12],
"adapter_size": 64, "weights": "exits.safetensors"}. Weights lie beside it under one of two names; new ones are written
under the other, so that replacing the description replaces both at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from autoglm_backend.models.config import CheckpointError, TextConfig
from autoglm_backend.models.json_table import JsonTable, read_json_object
from autoglm_backend.models.layers import RMSNorm
from autoglm_backend.models.weights import load_module

EXITS_JSON = "exits.json"
EXITS_TENSORS = ("exits.safetensors", "exits_2.safetensors")
"""Where weights may lie; a description that names no file means the first."""


class ExitHead(nn.Module):
    """Residual stream at one depth [T, D] -> the stream that the shared output head reads [T, D]."""

    def __init__(self, config: TextConfig, adapter_size: int) -> None:
        super().__init__()
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.adapter_in = nn.Linear(config.hidden_size, adapter_size, bias=False)
        self.adapter_out = nn.Linear(adapter_size, config.hidden_size, bias=False)
        # Starts as the plain norm, so an untrained exit is exactly the "logit lens".
        nn.init.zeros_(self.adapter_out.weight)

    def forward(self, hidden_TD: Tensor) -> Tensor:
        normed_TD = self.norm(hidden_TD)
        return normed_TD + self.adapter_out(F.silu(self.adapter_in(normed_TD)))


class ExitHeads(nn.Module):
    def __init__(self, config: TextConfig, depths: Sequence[int], adapter_size: int) -> None:
        super().__init__()
        for depth in depths:
            if not 0 < depth < config.num_layers:
                raise CheckpointError(f"exits.json: exit depth {depth} must lie between 1 and {config.num_layers - 1}")
        self.depths = tuple(sorted(depths))
        self.heads = nn.ModuleDict({str(depth): ExitHead(config, adapter_size) for depth in self.depths})

    def forward(self, depth: int, hidden_TD: Tensor) -> Tensor:
        return self.heads[str(depth)](hidden_TD)


def load_exit_heads(checkpoint_dir: Path, config: TextConfig) -> ExitHeads | None:
    """The checkpoint's exits, None when it has none. Raises CheckpointError."""
    path = checkpoint_dir / "exits" / EXITS_JSON
    if not path.exists():
        return None
    table = JsonTable(read_json_object(path), path)
    adapter_size = table.whole("adapter_size")
    if adapter_size < 1:
        raise table.error("adapter_size", f"is {adapter_size}, must be a whole number from 1")
    weights = table.get("weights") or EXITS_TENSORS[0]
    if weights not in EXITS_TENSORS:
        raise table.error("weights", f"is {weights!r}, must be {' or '.join(EXITS_TENSORS)}")
    heads = ExitHeads(config, table.whole_numbers("depths"), adapter_size)
    load_module(heads, [path.with_name(weights)], lambda name: name)
    return heads.requires_grad_(False)


def load_draft_vocab(checkpoint_dir: Path, config: TextConfig) -> Tensor | None:
    """Token ids int64 [K] that drafts may be ("ids" in `exits/draft_vocab.safetensors`), None for all of them.

    An output head of the commonest tokens only makes drafts cheaper; what it leaves out is merely never guessed. Raises
    CheckpointError.
    """
    path = checkpoint_dir / "exits" / "draft_vocab.safetensors"
    if not path.exists():
        return None
    try:
        ids_K = load_file(path).get("ids")
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged or truncated safetensors file ({error})") from error
    if ids_K is None or ids_K.dtype != torch.int64 or ids_K.ndim != 1 or len(ids_K) == 0:
        raise CheckpointError(f"{path}: ids must be an int64 list of token ids")
    if int(ids_K.min()) < 0 or int(ids_K.max()) >= config.vocab_size or len(ids_K.unique()) != len(ids_K):
        raise CheckpointError(f"{path}: ids must be different and lie in 0..{config.vocab_size - 1}")
    return ids_K


def exit_tensors(heads: ExitHeads) -> dict[str, Tensor]:
    """What the weights' file holds, bfloat16."""
    return {name: tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in heads.state_dict().items()}

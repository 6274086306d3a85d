"""Exit heads: what turns the residual stream at a shallow depth into logits.

Each exit has its own norm and a small gated-free bottleneck adapter, and shares the decoder's output head. The backbone
is never touched, so full depth stays what the checkpoint says. Weights live in the sidecar `exits/exits.safetensors`,
its description in `exits/exits.json`: {"depths": [6, 12, 18], "adapter_size": 64}.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from autoglm_backend.models.config import CheckpointError, TextConfig
from autoglm_backend.models.layers import RMSNorm
from autoglm_backend.models.weights import load_module


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
    description = checkpoint_dir / "exits" / "exits.json"
    if not description.exists():
        return None
    fields = json.loads(description.read_text(encoding="utf-8"))
    heads = ExitHeads(config, fields["depths"], fields["adapter_size"])
    load_module(heads, [checkpoint_dir / "exits" / "exits.safetensors"], lambda name: name)
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
    """What `exits.safetensors` holds, bfloat16."""
    return {name: tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in heads.state_dict().items()}

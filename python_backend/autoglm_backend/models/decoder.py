"""The GLM-4.1V text decoder: four norms a layer, partial interleaved M-RoPE, grouped-query attention, fused gate/up.

One primitive, `run_span(first, last, ...)`, runs layers [first, last) over ragged rows laid end to end. Depth, masks
and KV caches belong to the caller through `attend`, so training, the engine and the tests share these very layers.
Reference: transformers' `Glm4vTextModel` (logits equal within float32 rounding, `tests/models/test_parity.py`).

Shape legend: T tokens, D hidden, H heads, G KV heads, d head dimension, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoglm_backend.models.config import TextConfig
from autoglm_backend.models.layers import Attend, RMSNorm, Rotation, mrope_rotation, rotate_interleaved


class Attention(nn.Module):
    def __init__(self, config: TextConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        size, kv_size = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, size, bias=True)
        self.k_proj = nn.Linear(config.hidden_size, kv_size, bias=True)
        self.v_proj = nn.Linear(config.hidden_size, kv_size, bias=True)
        self.o_proj = nn.Linear(size, config.hidden_size, bias=False)

    def forward(self, hidden_TD: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
        shape = (*hidden_TD.shape[:-1], -1, self.head_dim)
        q_THd = rotate_interleaved(self.q_proj(hidden_TD).view(shape), rotation)
        k_TGd = rotate_interleaved(self.k_proj(hidden_TD).view(shape), rotation)
        v_TGd = self.v_proj(hidden_TD).view(shape)
        return self.o_proj(attend(self.layer, q_THd, k_TGd, v_TGd).flatten(-2))


class GatedMLP(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden_TD: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(hidden_TD).chunk(2, dim=-1)
        return self.down_proj(F.silu(gate) * up)


class DecoderLayer(nn.Module):
    def __init__(self, config: TextConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, layer)
        self.mlp = GatedMLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_self_attn_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        # Despite its name this norm stands before the MLP; the checkpoint's names are kept.
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_mlp_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden_TD: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
        attended = self.self_attn(self.input_layernorm(hidden_TD), rotation, attend)
        hidden_TD = hidden_TD + self.post_self_attn_layernorm(attended)
        widened = self.mlp(self.post_attention_layernorm(hidden_TD))
        return hidden_TD + self.post_mlp_layernorm(widened)


FEW_POSITIONS = 4096
"""What `text_rotation` looks up from the start; it doubles when a text goes beyond."""

RunSpan = Callable[[int, int, Tensor, Rotation, Any], Tensor]
"""`run_span` in another form; what it asks of `attend` is its own business."""


class TextDecoder(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.prepared: RunSpan | None = None
        """Replaces the layers where they were prepared for a device (models/cpu_decoder.py)."""
        self._text_rotation: Rotation | None = None
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, layer) for layer in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight

    def rotation(self, positions_3T: Tensor) -> Rotation:
        """Rotary angles of integer positions [3, ...] on the temporal, row and column axis."""
        config = self.config
        return mrope_rotation(positions_3T, config.mrope_section, config.rotary_dim, config.rope_theta)

    def text_rotation(self, positions_T: Sequence[int]) -> Rotation:
        """`rotation` of tokens that stand at one place on all axes, as generated ones do: looked up, not computed."""
        device = self.norm.weight.device
        known = self._text_rotation
        if known is None or known.cos.device != device or max(positions_T, default=0) >= len(known.cos):
            length = 1 << max(max(positions_T, default=0), FEW_POSITIONS - 1).bit_length()
            known = self._text_rotation = self.rotation(torch.arange(length, device=device).expand(3, -1))
        at_T = torch.tensor(positions_T, dtype=torch.int64, device=device)
        return Rotation(known.cos[at_T], known.sin[at_T])

    def run_span(self, first: int, last: int, hidden_TD: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
        """Run layers [first, last). The result is the residual stream, not yet normed."""
        if self.prepared is not None:
            return self.prepared(first, last, hidden_TD, rotation, attend)
        return self.run_layers(first, last, hidden_TD, rotation, attend)

    def run_layers(self, first: int, last: int, hidden_TD: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
        """`run_span` through the plain layers."""
        for layer in self.layers[first:last]:
            hidden_TD = layer(hidden_TD, rotation, attend)
        return hidden_TD

    def logits(self, hidden_TD: Tensor) -> Tensor:
        """Full-depth logits [T, V] of a residual stream that has passed every layer."""
        return self.lm_head(self.norm(hidden_TD))


def causal_attend(layer: int, q_BTHd: Tensor, k_BTGd: Tensor, v_BTGd: Tensor) -> Tensor:
    """Plain causal attention over whole sequences without a cache: the reference, and training's default."""
    return masked_attend(None)(layer, q_BTHd, k_BTGd, v_BTGd)


def masked_attend(mask_TT: Tensor | None) -> Attend:
    """Attention under a boolean mask (True: may look), [T, T] or [B, 1, T, T]; None is causal."""

    def attend(layer: int, q_BTHd: Tensor, k_BTGd: Tensor, v_BTGd: Tensor) -> Tensor:
        out = F.scaled_dot_product_attention(
            q_BTHd.transpose(-3, -2),
            k_BTGd.transpose(-3, -2),
            v_BTGd.transpose(-3, -2),
            attn_mask=mask_TT,
            is_causal=mask_TT is None,
            enable_gqa=True,
        )
        return out.transpose(-3, -2)

    return attend


@torch.no_grad()
def init_weights(decoder: TextDecoder, std: float = 0.02) -> None:
    """Random start for training and for tests: normal linears, and quiet residual branches.

    The norms after attention and MLP scale what each layer adds; starting them at 1/sqrt(2 * layers) keeps the residual
    stream near unit size at any depth, which is what lets shallow exits share the head.
    """
    for module in decoder.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.normal_(0.0, std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.zero_()
    quiet = (2 * decoder.config.num_layers) ** -0.5
    for layer in decoder.layers:
        assert isinstance(layer, DecoderLayer)
        layer.post_self_attn_layernorm.weight.fill_(quiet)
        layer.post_mlp_layernorm.weight.fill_(quiet)

"""The decoder's layers as a CPU runs them fastest: fused and packed weights, and few calls between the products.

Equal to `DecoderLayer` up to rounding (tests/models/test_cpu_decoder.py). Built once after loading, layer by layer;
each layer's own weights are released as soon as its packed form stands, so the model is never in memory twice.

Shape legend: T tokens, D hidden, H heads, G KV heads, d head dimension, F MLP width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from autoglm_backend.models.config import TextConfig
from autoglm_backend.models.cpu_linear import Linear
from autoglm_backend.models.cpu_rows import RowKernels
from autoglm_backend.models.decoder import DecoderLayer, TextDecoder
from autoglm_backend.models.heap import return_free_memory
from autoglm_backend.models.layers import Rotation
from autoglm_backend.models.row_parallel import summed_as

MakeLinear = Callable[[str, Tensor, Tensor | None], Linear]
"""`make(name, weight_NK, bias_N)`, the form a product runs in; name is "qkv", "o", "gate_up", "down" or "head"."""


class FusedAttend(Protocol):
    """An attention that takes queries, keys and values as one product left them."""

    def fused(self, layer: int, qkv: Tensor, cos: np.ndarray, sin: np.ndarray, out: Tensor) -> None:
        """Rotate, store and attend: qkv [T, (H + 2G) * d] (changed in place) to out [T, H * d]."""
        ...


class CpuLayer:
    """One layer's packed products and the addresses of its four norms' weights."""

    def __init__(self, layer: DecoderLayer, make: MakeLinear) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        weight = torch.cat([part.weight for part in parts])
        self.qkv = make("qkv", weight, torch.cat([part.bias for part in parts]))
        self.o = summed_as(attention.o_proj, make("o", attention.o_proj.weight.detach(), None))
        self.gate_up = make("gate_up", mlp.gate_up_proj.weight.detach(), None)
        self.down = summed_as(mlp.down_proj, make("down", mlp.down_proj.weight.detach(), None))
        norms = (
            layer.input_layernorm,
            layer.post_self_attn_layernorm,
            layer.post_attention_layernorm,
            layer.post_mlp_layernorm,
        )
        self.norm_weights = [norm.weight.detach().contiguous() for norm in norms]
        self.addresses = tuple(weight.data_ptr() for weight in self.norm_weights)


class CpuSpans:
    """`TextDecoder.run_span` for a CPU."""

    def __init__(self, config: TextConfig, layers: nn.ModuleList, make: MakeLinear) -> None:
        self.config = config
        self.layers: list[CpuLayer] = []
        while len(layers):
            layer = layers[0]
            assert isinstance(layer, DecoderLayer)
            self.layers.append(CpuLayer(layer, make))
            del layer, layers[0]
            return_free_memory()  # what is kept of plain layers may add up to a second copy of the weights

    def run_span(self, first: int, last: int, stream_TD: Tensor, rotation: Rotation, attend: FusedAttend) -> Tensor:
        """Layers [first, last) over the residual stream, which is left as it was."""
        config = self.config
        stream_TD = stream_TD.clone(memory_format=torch.contiguous_format)
        tokens, size = stream_TD.shape
        normed_TD = torch.empty_like(stream_TD)
        attended_TD = stream_TD.new_empty((tokens, config.num_heads * config.head_dim))
        gated_TF = stream_TD.new_empty((tokens, config.intermediate_size))
        stream, normed, gated = stream_TD.data_ptr(), normed_TD.data_ptr(), gated_TF.data_ptr()
        cos, sin = rotation.cos.numpy(), rotation.sin.numpy()
        width = config.intermediate_size
        kernels = RowKernels(stream_TD.dtype, tokens, config.rms_norm_eps)
        kernels.rms_norm(stream, self.layers[first].addresses[0], normed, size)
        for number in range(first, last):
            layer = self.layers[number]
            _, after_attention, before_mlp, after_mlp = layer.addresses
            attend.fused(number, layer.qkv(normed_TD), cos, sin, attended_TD)
            branch = layer.o(attended_TD)
            kernels.add_normed(stream, branch.data_ptr(), after_attention, before_mlp, normed, size)
            gate_up = layer.gate_up(normed_TD)
            kernels.silu_gate(gate_up.data_ptr(), gated, width)
            branch = layer.down(gated_TF)
            following = self.layers[number + 1].addresses[0] if number + 1 < last else 0
            kernels.add_normed(stream, branch.data_ptr(), after_mlp, following, normed, size)
        return stream_TD


class CpuHead(nn.Module):
    """The output head in packed form."""

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, hidden_TD: Tensor) -> Tensor:
        return self.linear(hidden_TD)


def prepare_for_cpu(decoder: TextDecoder, make: MakeLinear) -> None:
    """Move the decoder's layers and head into their packed form, in place. The plain layers are gone afterwards."""
    decoder.prepared = CpuSpans(decoder.config, decoder.layers, make).run_span
    decoder.add_module("lm_head", CpuHead(make("head", decoder.lm_head.weight.detach(), None)))

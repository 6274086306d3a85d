"""The decoder with the engine's own quantized products in it, so that calibration measures the weights that are served.

The engine prepares its decoder for paged rows laid end to end; the reference decoder runs padded batches. So the engine
makes the products, and the plain layers call them: norms, attention and gating stay those of `models/decoder`.

Shape legend: T tokens (any leading shape), D hidden, H heads, G KV heads, d head dimension, K inputs, N outputs.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from autoglm_backend.engine.kernel_choice import prepare_decoder
from autoglm_backend.models.cpu_decoder import CpuHead, CpuLayer, CpuSpans
from autoglm_backend.models.decoder import DecoderLayer, TextDecoder
from autoglm_backend.models.gpu_linear import check_quantization, quantize_layers
from autoglm_backend.models.layers import Attend, Rotation, rotate_interleaved
from autoglm_backend.profiles import QUANTIZATIONS

SCHEMES = tuple(name for name in QUANTIZATIONS if name != "auto")
COMPILED_BLOCK = 32
"""Tokens of a block for which the engine compiles its attention, which is not used here."""


class _Flat(nn.Module):
    """A product of rows [T, K] for any leading shape. It reads memory by address, so rows must lie end to end."""

    def __init__(self, product: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._product = product

    def forward(self, x_TK: Tensor) -> Tensor:
        return self._product(x_TK.reshape(-1, x_TK.shape[-1]).contiguous()).view(*x_TK.shape[:-1], -1)


class _FusedAttention(nn.Module):
    """`models.decoder.Attention` over one product for queries, keys and values."""

    def __init__(self, number: int, head_dim: int, sizes: list[int], layer: CpuLayer) -> None:
        super().__init__()
        self._number, self._head_dim, self._sizes = number, head_dim, sizes
        self._qkv, self._o = _Flat(layer.qkv), _Flat(layer.o)

    def forward(self, hidden_TD: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
        q, k, v = (part.unflatten(-1, (-1, self._head_dim)) for part in self._qkv(hidden_TD).split(self._sizes, dim=-1))
        attended = attend(self._number, rotate_interleaved(q, rotation), rotate_interleaved(k, rotation), v)
        return self._o(attended.flatten(-2))


def quantize_as_served(decoder: TextDecoder, quantization: str) -> None:
    """Give the decoder the products that the engine serves this scheme of SCHEMES with on this device, in place.

    The head is quantized where the engine does so. Raises ValueError for a scheme that device or precision have not.
    """
    if quantization == "none":
        return
    weight = decoder.norm.weight
    if weight.device.type == "cuda":
        check_quantization(quantization, weight.device)
        _on_gpu(decoder, quantization)
    else:
        _on_cpu(decoder, quantization)


def _on_gpu(decoder: TextDecoder, quantization: str) -> None:
    names = [name for name, module in decoder.layers.named_modules() if isinstance(module, nn.Linear)]
    quantize_layers(decoder, quantization, decoder.norm.weight.device)
    for name in names:
        parent, _, last = name.rpartition(".")
        setattr(decoder.layers.get_submodule(parent), last, _Flat(decoder.layers.get_submodule(name)))


def _on_cpu(decoder: TextDecoder, quantization: str) -> None:
    config, layers = decoder.config, list(decoder.layers)
    prepare_decoder(decoder, quantization, COMPILED_BLOCK)
    spans, head = getattr(decoder.prepared, "__self__", None), decoder.lm_head
    assert isinstance(spans, CpuSpans)
    assert isinstance(head, CpuHead)
    size, kv_size = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    for number, (layer, products) in enumerate(zip(layers, spans.layers, strict=True)):
        assert isinstance(layer, DecoderLayer)
        layer.add_module("self_attn", _FusedAttention(number, config.head_dim, [size, kv_size, kv_size], products))
        layer.mlp.add_module("gate_up_proj", _Flat(products.gate_up))
        layer.mlp.add_module("down_proj", _Flat(products.down))
    decoder.prepared = None
    decoder.layers = nn.ModuleList(layers)
    decoder.add_module("lm_head", _Flat(head.linear))

"""8-bit products for GPUs; torch has them on CPUs too, so their arithmetic is checked here."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoglm_backend.models.config import TextConfig
from autoglm_backend.models.decoder import TextDecoder, causal_attend, init_weights
from autoglm_backend.models.gpu_linear import Float8Product, Int8Product, quantize_layers

CONFIG = TextConfig(
    vocab_size=64,
    hidden_size=64,
    intermediate_size=128,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    max_positions=128,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    rotary_dim=8,
    mrope_section=(1, 1, 2),
    tie_word_embeddings=False,
)


@pytest.mark.parametrize(("form", "bound"), [(Int8Product, 0.02), (Float8Product, 0.05)])
@pytest.mark.parametrize("tokens", [1, 17, 40])
def test_a_product_is_as_close_as_its_bits_allow(form: type, bound: float, tokens: int) -> None:
    torch.manual_seed(1)
    linear = nn.Linear(256, 96).to(torch.bfloat16)
    x_TK = torch.randn(tokens, 256, dtype=torch.bfloat16)
    exact = linear(x_TK).float()
    assert ((form(linear)(x_TK).float() - exact).norm() / exact.norm()).item() < bound


@pytest.mark.parametrize("quantization", ["int8", "fp8"])
@torch.no_grad()
def test_a_quantized_decoder_keeps_its_stream(quantization: str) -> None:
    torch.manual_seed(1)
    decoder = TextDecoder(CONFIG).to(torch.bfloat16)
    init_weights(decoder)
    hidden_TD = torch.randn(9, 64, dtype=torch.bfloat16)
    rotation = decoder.rotation(torch.arange(9).expand(3, -1))
    exact = decoder.run_span(0, 2, hidden_TD, rotation, causal_attend).float()
    quantize_layers(decoder, quantization, torch.device("cpu"))
    assert not any("proj" in name for name, _ in decoder.named_parameters())
    rounded = decoder.run_span(0, 2, hidden_TD, rotation, causal_attend).float()
    assert ((rounded - exact).norm() / exact.norm()).item() < 0.05


def test_weights_go_to_the_card_rounded_and_leave_the_host() -> None:
    decoder = TextDecoder(CONFIG).to(torch.bfloat16)
    elsewhere = torch.device("meta")  # any device but the one where the weights were read

    quantize_layers(decoder, "int8", elsewhere)

    assert {parameter.device for parameter in decoder.parameters()} == {elsewhere}
    assert not any("proj" in name for name, _ in decoder.named_parameters())

"""Products and row kernels of the CPU decoder: right numbers, the same ones whoever shares the step."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from autoglm_backend.models import cpu_product
from autoglm_backend.models.cpu_kernels import KINDS
from autoglm_backend.models.cpu_product import FEW_TOKENS, StreamedLinear, check_layout
from autoglm_backend.models.cpu_rows import MANY_TOKENS, RowKernels
from autoglm_backend.models.quantization import Int8Linear

DTYPES = pytest.mark.parametrize("dtype", list(KINDS), ids=str)


def normal(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@DTYPES
@pytest.mark.parametrize("outputs", [48, 64, 150])
@pytest.mark.parametrize("biased", [False, True])
def test_a_few_tokens_get_the_product_within_rounding(dtype: torch.dtype, outputs: int, biased: bool) -> None:
    weight_NK = normal(outputs, 96, dtype=dtype)
    bias_N = normal(outputs, seed=2, dtype=dtype) if biased else None
    linear = StreamedLinear(weight_NK, bias_N)
    rounding = 4e-6 if dtype is torch.float32 else 4e-3
    for tokens in range(1, FEW_TOKENS[dtype] + 3):
        x_TK = normal(tokens, 96, seed=tokens, dtype=dtype)
        expected = x_TK.double() @ weight_NK.double().T + (0 if bias_N is None else bias_N.double())
        assert (linear(x_TK).double() - expected).norm() / expected.norm() < rounding


@DTYPES
def test_a_token_has_the_same_product_alone_and_among_others(dtype: torch.dtype) -> None:
    linear = StreamedLinear(normal(150, 96, dtype=dtype), None)
    x_TK = normal(FEW_TOKENS[dtype], 96, seed=2, dtype=dtype)
    for tokens in range(1, len(x_TK) + 1):
        assert torch.equal(linear(x_TK[:tokens])[-1:], linear(x_TK[tokens - 1 : tokens]))


@DTYPES
def test_threads_do_not_change_a_product(dtype: torch.dtype) -> None:
    """The team's size changes while requests run."""
    linear = StreamedLinear(normal(200, 96, dtype=dtype), None)
    for tokens in (1, 4, 40):
        x_TK = normal(tokens, 96, seed=2, dtype=dtype)
        with threads(1):
            alone = linear(x_TK)
        with threads(2):
            assert torch.equal(linear(x_TK), alone)


@DTYPES
@pytest.mark.parametrize("biased", [False, True])
def test_int8_of_a_few_tokens_equals_that_of_many(dtype: torch.dtype, biased: bool) -> None:
    weight_NK = normal(150, 96, dtype=dtype)
    bias_N = normal(150, seed=2, dtype=dtype) if biased else None
    ours, theirs = Int8Linear(weight_NK, bias_N), Int8Linear(weight_NK, bias_N, streamed=False)
    x_TK = normal(FEW_TOKENS[torch.int8], 96, seed=3, dtype=dtype)
    got, expected = ours(x_TK).float(), theirs(x_TK).float()
    # oneDNN rounds to bfloat16 once more, before the inputs' scale.
    assert torch.allclose(got, expected, rtol=0 if dtype is torch.float32 else 2**-7, atol=0 if not biased else 0.05)


def test_an_order_that_the_kernel_does_not_read_is_refused() -> None:
    weight_NK = normal(64, 96)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight_NK, None)
    check_layout(packed, weight_NK)
    with pytest.raises(ValueError, match="in another order"):
        check_layout(packed, weight_NK.flip(0))
    with pytest.raises(ValueError, match="in less memory"):
        check_layout(packed, normal(65, 96))


def test_inputs_that_do_not_fill_words_are_refused() -> None:
    with pytest.raises(ValueError, match=r"95 inputs of torch\.bfloat16 are not a multiple of 4 bytes"):
        StreamedLinear(normal(64, 95, dtype=torch.bfloat16), None)


def test_int8_goes_to_onednn_where_the_order_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_product, "PACKED_OUTPUTS", 32)
    weight_NK, x_TK = normal(150, 96), normal(3, 96, seed=2)
    expected = Int8Linear(weight_NK, None, streamed=False)(x_TK)
    assert torch.equal(Int8Linear(weight_NK, None)(x_TK), expected)


@DTYPES
def test_rows_on_several_threads_are_those_of_one(dtype: torch.dtype) -> None:
    tokens, size = MANY_TOKENS + 1, 48
    weight, following = normal(size, seed=4, dtype=dtype), normal(size, seed=5, dtype=dtype)

    def between_two_products() -> tuple[Tensor, ...]:
        stream, branch = normal(tokens, size, seed=2, dtype=dtype), normal(tokens, size, seed=3, dtype=dtype)
        first, second, gated = torch.empty_like(stream), torch.empty_like(stream), stream.new_empty((tokens, size // 2))
        kernels = RowKernels(dtype, tokens, 1e-5)
        kernels.rms_norm(stream.data_ptr(), weight.data_ptr(), first.data_ptr(), size)
        addresses = (branch.data_ptr(), weight.data_ptr(), following.data_ptr(), second.data_ptr())
        kernels.add_normed(stream.data_ptr(), *addresses, size)
        kernels.silu_gate(branch.data_ptr(), gated.data_ptr(), size // 2)
        return stream, first, second, gated

    with threads(1):
        alone = between_two_products()
    with threads(2):
        together = between_two_products()
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)

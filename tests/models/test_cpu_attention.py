"""Attention of a prompt's tokens together against attention of each alone, and against float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from autoglm_backend.models.cpu_attention import PACKED_FROM, RUN_TOKENS, HeadShape, PagedReader

BLOCK_TOKENS = 8
TOKENS = 2 * RUN_TOKENS + 5
SHAPES = {
    "share of 8": HeadShape(heads=16, groups=2, head_dim=64, block_tokens=BLOCK_TOKENS),
    "share of 3": HeadShape(heads=6, groups=2, head_dim=32, block_tokens=BLOCK_TOKENS),
    "odd share and size": HeadShape(heads=5, groups=1, head_dim=40, block_tokens=BLOCK_TOKENS),
    "share of 2, large heads": HeadShape(heads=4, groups=2, head_dim=128, block_tokens=BLOCK_TOKENS),
}
DTYPES = (torch.float32, torch.bfloat16)


class Memory:
    """One row's keys and values in blocks of a shuffled order, all but the last `TOKENS` of them written."""

    def __init__(self, shape: HeadShape, dtype: torch.dtype, start: int) -> None:
        generator = torch.Generator().manual_seed(5)
        count = math.ceil((start + TOKENS) / BLOCK_TOKENS)
        size = (count, BLOCK_TOKENS, shape.groups, shape.head_dim)
        self.shape, self.dtype, self.start = shape, dtype, start
        self.keys, self.values = (torch.randn(size, generator=generator).to(dtype) for _ in range(2))
        self.blocks_BN = torch.randperm(count, generator=generator).numpy()[None].astype(np.int64)
        width = (shape.heads + 2 * shape.groups) * shape.head_dim
        self.qkv = torch.randn(TOKENS, width, generator=generator).to(dtype)

    def attend(self, first: int, end: int, unseen: tuple[int, int] = (0, 0)) -> Tensor:
        """Output of the new tokens [first, end), which are stored on the way."""
        positions = np.arange(self.start + first, self.start + end)
        none = np.zeros(end - first, dtype=np.int64)
        reader = PagedReader(
            self.shape,
            self.dtype,
            positions_T=positions,
            unseen_T=(none + unseen[0], none + unseen[1]),
            rows_T=none,
        )
        slots = self.blocks_BN[0, positions // BLOCK_TOKENS] * BLOCK_TOKENS + positions % BLOCK_TOKENS
        reader.find(slots_T=slots, blocks_BN=self.blocks_BN)
        angles = np.zeros((end - first, 4), dtype=np.float32)
        out = torch.empty(end - first, self.shape.heads * self.shape.head_dim, dtype=self.dtype)
        qkv = self.qkv[first:end].clone()
        reader(qkv, np.cos(angles), np.sin(angles), out, self.keys.data_ptr(), self.values.data_ptr())
        return out

    def expected(self, sink: int = 0, unseen: int = 0) -> Tensor:
        """The same in float64, once everything is stored."""
        shape = self.shape
        of_row = torch.from_numpy(self.blocks_BN[0])
        keys, values = (cache[of_row].flatten(0, 1).double() for cache in (self.keys, self.values))
        share = shape.heads // shape.groups
        q = self.qkv[:, : shape.heads * shape.head_dim].double().unflatten(1, (shape.heads, shape.head_dim))
        scores = torch.einsum("thd,lhd->htl", q, keys.repeat_interleave(share, 1)) / math.sqrt(shape.head_dim)
        place, now = torch.arange(len(keys)), self.start + torch.arange(TOKENS)[:, None]
        seen = (place <= now) & ~((place >= sink) & (place < sink + unseen))
        weights = scores.masked_fill(~seen, -math.inf).softmax(-1)
        return torch.einsum("htl,lhd->thd", weights, values.repeat_interleave(share, 1)).flatten(1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("start", [0, 21])
def test_a_prompts_tokens_together_get_the_bits_of_each_alone(shape: HeadShape, dtype: torch.dtype, start: int) -> None:
    together = Memory(shape, dtype, start).attend(0, TOKENS)
    memory = Memory(shape, dtype, start)
    alone = torch.cat([memory.attend(token, token + 1) for token in range(TOKENS)])
    assert RUN_TOKENS * shape.heads // shape.groups >= PACKED_FROM, "else nothing was scored together"
    assert torch.equal(together, alone)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_prompt_attends_as_in_float64(shape: HeadShape) -> None:
    memory = Memory(shape, torch.float32, 13)
    torch.testing.assert_close(memory.attend(0, TOKENS).double(), memory.expected(), rtol=2e-5, atol=2e-6)


def test_a_prompt_that_does_not_see_a_middle_attends_as_in_float64() -> None:
    memory = Memory(SHAPES["share of 8"], torch.float32, 40)
    got = memory.attend(0, TOKENS, unseen=(4, 24))
    torch.testing.assert_close(got.double(), memory.expected(4, 24), rtol=2e-5, atol=2e-6)

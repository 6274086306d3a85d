"""Training's attention against the reference under the same mask, and the layout of branching rows."""

from __future__ import annotations

import torch

from autoglm_backend.models.decoder import causal_attend, masked_attend
from autoglm_training.attention import branch_products, causal_products
from autoglm_training.samples import IGNORE, Row, collate_branches

ROWS, PREFIX, BRANCHES, WIDTH, HEADS, KV_HEADS, HEAD_DIM = 2, 7, 3, 4, 6, 2, 32
LENGTH = PREFIX + BRANCHES * WIDTH


def random_heads() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    sizes = (HEADS, KV_HEADS, KV_HEADS)
    q, k, v = (torch.randn(ROWS, LENGTH, size, HEAD_DIM, generator=generator) for size in sizes)
    return q, k, v


def test_causal_products_equal_the_reference() -> None:
    q, k, v = random_heads()
    torch.testing.assert_close(causal_products()(0, q, k, v), causal_attend(0, q, k, v))


def test_branch_products_equal_a_dense_mask() -> None:
    q, k, v = random_heads()
    real = torch.ones(ROWS, PREFIX, dtype=torch.bool)
    real[1, 5:] = False
    segments = torch.cat((torch.zeros(PREFIX), torch.arange(1, BRANCHES + 1).repeat_interleave(WIDTH)))
    same_or_prefix = (segments[:, None] == segments[None]) | (segments == 0)[None]
    mask = (same_or_prefix & torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()).repeat(ROWS, 1, 1)
    mask[1, PREFIX:, 5:PREFIX] = False
    expected = masked_attend(mask[:, None])(0, q, k, v)
    torch.testing.assert_close(branch_products(PREFIX, BRANCHES, real)(0, q, k, v), expected)


def test_branches_start_at_common_columns() -> None:
    def row(segments: list[int]) -> Row:
        count = len(segments)
        return Row(
            ids=list(range(1, count + 1)),
            targets=[IGNORE] * count,
            points=[False] * count,
            boxes=[None] * count,
            segments=segments,
            positions=[(index, index, index) for index in range(count)],
        )

    batch = collate_branches([row([0, 0, 1, 1, 1, 2]), row([0, 0, 0, 1, 2, 2])])
    assert (batch.prefix_length, batch.num_branches) == (3, 2)
    assert batch.ids_BT.tolist() == [[1, 2, 0, 3, 4, 5, 6, 0, 0], [1, 2, 3, 4, 0, 0, 5, 6, 0]]
    assert batch.real_BT[0].tolist() == [True, True, False, True, True, True, True, False, False]

"""Block-sparse prefill: exact within the budget, causal beyond it, and only where prompts are read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.engine.test_engine import Stream, add_exits, ask, prompt
from tests.random_checkpoint import Shape, random_checkpoint

from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.service import DecoderService
from autoglm_backend.engine.sparse_prefill import QUERY_BLOCK, sparse_prefill
from autoglm_backend.engine.step_tables import LongRow
from autoglm_backend.models.decoder import masked_attend
from autoglm_protocol.plan import ExitMode
from autoglm_protocol.sampling import SamplingParams

BLOCK, HEADS, GROUPS, SIZE = 16, 4, 2, 8


def attend(
    length: int, start: int, budget: int, keys: torch.Tensor | None = None, mean_query: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sparse and dense attention of the queries [start, length) over shuffled cache blocks."""
    torch.manual_seed(3)
    num_blocks = -(-length // BLOCK)
    blocks = torch.randperm(num_blocks + 3)[:num_blocks]
    q = mean_query + torch.randn(length - start, HEADS, SIZE, dtype=torch.float64)
    k = torch.randn(num_blocks * BLOCK, GROUPS, SIZE, dtype=torch.float64) if keys is None else keys
    v = torch.randn(num_blocks * BLOCK, GROUPS, SIZE, dtype=torch.float64)
    cache_k, cache_v = (torch.full((num_blocks + 3, BLOCK, GROUPS, SIZE), 1e30, dtype=torch.float64) for _ in range(2))
    cache_k[blocks], cache_v[blocks] = k.view(-1, BLOCK, GROUPS, SIZE), v.view(-1, BLOCK, GROUPS, SIZE)
    row = LongRow(tokens=slice(0, length - start), blocks_N=blocks, start=start, num_keys=length, num_prompt=length)
    mask = torch.arange(length)[None] <= torch.arange(start, length)[:, None]
    dense = masked_attend(mask)(0, q, k[:length], v[:length])
    return sparse_prefill(q, cache_k, cache_v, row, budget), dense


@pytest.mark.parametrize(("length", "start"), [(200, 0), (200, 77), (65, 64), (256, 128)])
def test_a_budget_that_covers_the_prompt_reads_every_key(length: int, start: int) -> None:
    sparse, dense = attend(length, start, budget=256)
    torch.testing.assert_close(sparse, dense)


def test_queries_that_see_no_more_than_the_budget_are_exact_in_a_longer_prompt() -> None:
    sparse, dense = attend(1024, 0, budget=256)
    torch.testing.assert_close(sparse[: 256 + QUERY_BLOCK], dense[: 256 + QUERY_BLOCK])
    assert not torch.allclose(sparse[512:], dense[512:])


def test_a_block_far_away_is_found_by_its_score() -> None:
    keys = 0.01 * torch.randn(1024, GROUPS, SIZE, dtype=torch.float64)
    keys[400:416] = 3.0
    sparse, dense = attend(1024, 960, budget=192, keys=keys, mean_query=2.0)
    torch.testing.assert_close(sparse, dense, rtol=0.0, atol=0.05)


def service(directory: Path, dtype: str, sparse_prefill: int | None, **options: object) -> DecoderService:
    chosen = {"kv_cache_tokens": 2048, "block_tokens": 16, "max_step_tokens": 128, **options}
    return DecoderService.from_checkpoint(
        directory,
        EngineOptions(device="cpu", dtype=dtype, threads=1, sparse_prefill=sparse_prefill, **chosen),  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sparse")
    random_checkpoint(directory, Shape())
    add_exits(directory, [1, 2])
    return directory


def answer(directory: Path, length: int, dtype: str, budget: int | None, mode: ExitMode = ExitMode.FIXED) -> list[int]:
    engine, stream = service(directory, dtype, budget), Stream()
    params = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)
    engine.add(ask("a", prompt(length, 1), exit_mode=mode, sampling=params), stream)
    ids = stream.ids()
    engine.shutdown()
    return ids


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_short_prompts_do_not_notice(directory: Path, dtype: str) -> None:
    assert answer(directory, 120, dtype, 128) == answer(directory, 120, dtype, None)


def test_the_packed_and_the_plain_layers_choose_the_same_keys(directory: Path) -> None:
    assert answer(directory, 450, "float32", 96) == answer(directory, 450, "float64", 96)


def test_a_long_prompt_is_read_differently(directory: Path) -> None:
    assert answer(directory, 450, "float64", 32) != answer(directory, 450, "float64", None)


def test_lossless_is_full_depth_after_the_same_prefill(directory: Path) -> None:
    assert answer(directory, 450, "float64", 96, ExitMode.LOSSLESS) == answer(directory, 450, "float64", 96)

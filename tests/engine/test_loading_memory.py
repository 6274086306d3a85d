"""From a checkpoint to a running decoder the weights are in memory once, their packed or rounded form included."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.random_checkpoint import Shape, random_checkpoint

ROOT = Path(__file__).parents[2]
# glibc's own threshold moves as memory is freed, and then it keeps more or less of what nobody uses any more.
STEADY_HEAP = {"MALLOC_MMAP_THRESHOLD_": str(128 << 10)}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small one and one of 218 MB."""
    small, large = tmp_path_factory.mktemp("small"), tmp_path_factory.mktemp("large")
    random_checkpoint(small, Shape(), dtype=torch.bfloat16)
    shape = Shape(hidden=1024, heads=8, layers=12, mrope_section=(8, 12, 12))
    random_checkpoint(large, shape, dtype=torch.bfloat16)
    return small, large


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_the_weights_are_never_in_memory_twice(checkpoints: tuple[Path, Path], quantization: str) -> None:
    small, large = checkpoints
    command = [sys.executable, "-m", "tests.engine.loading_peak", small, large, quantization]

    environment = {**os.environ, **STEADY_HEAP}
    ended = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    peak = int(ended.stdout)

    weights = (large / "model.safetensors").stat().st_size
    # The rest is the layer at hand: both its forms, and in float32 what is rounded.
    assert weights < peak < 1.3 * weights

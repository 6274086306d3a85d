"""Loads a decoder in a process of its own and prints how much memory that took at most, in bytes.

    python -m tests.engine.loading_peak SMALL LARGE QUANTIZATION

SMALL is loaded first, so that libraries and compiled kernels do not count for LARGE.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

from tests.models.test_weights import memory_bytes

from autoglm_backend.engine import kernel_choice
from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.service import DecoderService


def load(checkpoint: Path, quantization: str) -> None:
    options = EngineOptions(
        device="cpu", dtype="bfloat16", quantization=quantization, kv_cache_tokens=64, block_tokens=4, threads=1
    )
    DecoderService.from_checkpoint(checkpoint, options).shutdown()


def main(small: Path, large: Path, quantization: str) -> None:
    # Timing kernels takes memory of its own, of a fixed size and once per machine.
    kernel_choice.remembered_choices = lambda *_: {}
    load(small, quantization)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = memory_bytes("VmRSS")
    load(large, quantization)
    print(memory_bytes("VmHWM") - before)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])

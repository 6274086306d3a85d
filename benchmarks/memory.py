"""Where the memory goes: weights, keys and values per token at each depth, and the peak of a running decoder.

    python benchmarks/memory.py [--checkpoint DIR] [--precisions float32 bfloat16 bfloat16/int8 bfloat16/int4]

The checkpoint's figures are measured, each in a process of its own; AutoGLM-Phone-9B's are computed from its shapes,
with the settings that fit a 24 GB and a 16 GB card. Prints tables, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.sequence import segment_spans
from autoglm_backend.engine.service import DecoderService
from autoglm_backend.models.config import TextConfig, VisionConfig
from autoglm_backend.models.decoder import TextDecoder
from autoglm_backend.models.quantization import INT4_GROUP
from autoglm_backend.models.vision import VisionEncoder
from autoglm_protocol.events import StreamEvent, TokenDelta
from autoglm_protocol.sampling import SamplingParams
from autoglm_protocol.wire import DecodeRequest

PROMPT_TOKENS, NEW_TOKENS = 128, 16
# Sizes of AutoGLM-Phone-9B's config.json.
TEXT_9B = TextConfig(
    vocab_size=151552,
    hidden_size=4096,
    intermediate_size=13696,
    num_layers=40,
    num_heads=32,
    num_kv_heads=2,
    max_positions=65536,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    rotary_dim=64,
    mrope_section=(8, 12, 12),
    tie_word_embeddings=False,
)
VISION_9B = VisionConfig(
    depth=24,
    hidden_size=1536,
    num_heads=12,
    image_size=336,
    patch_size=14,
    temporal_patch_size=2,
    spatial_merge_size=2,
    in_channels=3,
    out_hidden_size=4096,
    intermediate_size=13696,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    attention_bias=False,
)
DEPTHS_9B = (10, 20, 30, 40)
CONTEXT_TOKENS = 25_480
"""What the guides to this model set."""
CARDS_GB = (24, 16)
USABLE = 0.92
"""Share of a card's memory that is left after the driver and the CUDA context."""
ACTIVATIONS_GIB = 1.5
"""A 1080x2400 screenshot through the ViT in bfloat16, and a prefill chunk: an allowance, not a measurement."""
GIB = 1 << 30
FORMS_9B = ("bfloat16", "int8/fp8, GPU", "int8, CPU", "int4, CPU")
"""int4 is for CPUs only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One precision of the checkpoint, in MiB."""

    loading: float
    """What loading and preparing added to the process, libraries and compiled kernels included, KV cache left out."""
    kv_cache: float
    peak: float


def measure(checkpoint: Path, dtype: str, quantization: str) -> Measured:
    """Load and answer once in this very process, which should be fresh."""
    before = _status_mib("VmRSS")
    options = EngineOptions(device="cpu", dtype=dtype, quantization=quantization, kv_cache_tokens=8192)
    service = DecoderService.from_checkpoint(checkpoint, options)
    text = service.config.text
    kv_bytes = 8192 * kv_bytes_per_token(text, text.num_layers, 4 if dtype == "float32" else 2)
    loaded = _status_mib("VmRSS")
    done = threading.Event()

    def emit(event: StreamEvent) -> None:
        if not isinstance(event, TokenDelta):
            done.set()

    sampling = SamplingParams(temperature=0.0, max_tokens=NEW_TOKENS, ignore_eos=True)
    ids = np.arange(300, 300 + PROMPT_TOKENS)
    service.add(DecodeRequest(tag="one", prompt_ids=ids, sampling=sampling), emit)
    done.wait()
    service.shutdown()
    kv_mib = kv_bytes / 2**20
    return Measured(loading=loaded - before - kv_mib, kv_cache=kv_mib, peak=_status_mib("VmHWM"))


def kv_bytes_per_token(config: TextConfig, depth: int, element_bytes: int) -> int:
    return 2 * depth * config.num_kv_heads * config.head_dim * element_bytes


def decoder_bytes(config: TextConfig, form: str) -> int:
    """Bytes of the decoder in one of FORMS_9B. A card keeps the head in bfloat16, a CPU rounds it to int8 at most."""
    with torch.device("meta"):
        decoder = TextDecoder(config)
    total = 0
    for name, parameter in decoder.named_parameters():
        count = parameter.numel()
        is_wide = parameter.ndim < 2 or "embed_tokens" in name or ("lm_head" in name and "GPU" in form)
        if is_wide or form == "bfloat16":
            total += 2 * count
        elif form == "int4, CPU" and "lm_head" not in name:
            total += count // 2 + 4 * count // INT4_GROUP
        else:
            total += count + 4 * parameter.shape[0]
    return total


def vision_bytes(config: VisionConfig) -> int:
    with torch.device("meta"):
        return 2 * sum(parameter.numel() for parameter in VisionEncoder(config).parameters())


def _status_mib(field: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def table_of_checkpoint(checkpoint: Path, precisions: list[str]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    print(f"{checkpoint.name}, measured (KV cache of 8,192 tokens), MiB")
    print(f"{'precision':<16}{'loading':>10}{'KV cache':>10}{'peak':>10}")
    for precision in precisions:
        command = [sys.executable, __file__, "--checkpoint", str(checkpoint), "--measure", precision]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        row = json.loads(out.splitlines()[-1])
        print(f"{precision:<16}{row['loading']:>10.0f}{row['kv_cache']:>10.0f}{row['peak']:>10.0f}")
        rows.append({"precision": precision, **row})
    return rows


def table_of_9b() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    vision = vision_bytes(VISION_9B)
    per_token = kv_bytes_per_token(TEXT_9B, TEXT_9B.num_layers, 2)
    print("\nAutoGLM-Phone-9B, computed, GiB (KV in bfloat16; ViT in bfloat16)")
    cards = "".join(f"{f'KV tokens, {card} GB':>20}" for card in CARDS_GB)
    print(f"{'weights':<16}{'decoder':>10}{'ViT':>8}{'KV, 25,480':>12}{cards}{'fits the full context on':>28}")
    for form in FORMS_9B:
        decoder = decoder_bytes(TEXT_9B, form)
        left = {card: USABLE * card * 1e9 - decoder - vision - ACTIVATIONS_GIB * GIB for card in CARDS_GB}
        tokens = {} if "CPU" in form else {card: max(0, int(room // per_token)) for card, room in left.items()}
        fits = [f"{card} GB" for card, count in tokens.items() if count >= CONTEXT_TOKENS]
        cells = "".join(f"{tokens[card]:>20,}" if card in tokens else f"{'':>20}" for card in CARDS_GB)
        print(
            f"{form:<16}{decoder / GIB:>10.2f}{vision / GIB:>8.2f}{CONTEXT_TOKENS * per_token / GIB:>12.2f}{cells}"
            f"{', '.join(fits) or ('' if 'CPU' in form else 'neither'):>28}"
        )
        rows.append(
            {"weights": form, "decoder_bytes": decoder, "vision_bytes": vision, "kv_tokens": tokens, "fits": fits}
        )
    return rows


def table_of_kv(name: str, config: TextConfig, depths: list[int], element_bytes: int) -> dict[int, int]:
    figures = {depth: kv_bytes_per_token(config, depth, element_bytes) for depth in depths}
    print(f"\n{name}, KV per token in {8 * element_bytes} bits, at depth: ", end="")
    print(", ".join(f"{depth}: {size / 1024:g} KiB" for depth, size in figures.items()))
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/autoglm-phone-tiny"))
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16", "bfloat16/int8", "bfloat16/int4"])
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        dtype, _, quantization = args.measure.partition("/")
        found = measure(args.checkpoint, dtype, quantization or "none")
        print(json.dumps({"loading": found.loading, "kv_cache": found.kv_cache, "peak": found.peak}))
        return 0
    from autoglm_backend.models.config import load_model_config
    from autoglm_backend.models.exits import load_exit_heads

    text = load_model_config(args.checkpoint).text
    exits = load_exit_heads(args.checkpoint, text)
    depths = [last for _, last in segment_spans(exits.depths if exits else (), text.num_layers)]
    measured = table_of_checkpoint(args.checkpoint, args.precisions)
    kv = {
        "checkpoint_float32": table_of_kv(args.checkpoint.name, text, depths, 4),
        "9b_bfloat16": table_of_kv("AutoGLM-Phone-9B", TEXT_9B, list(DEPTHS_9B), 2),
    }
    computed = table_of_9b()
    print(json.dumps({"benchmark": "memory", "measured_mib": measured, "kv_bytes": kv, "computed_9b": computed}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

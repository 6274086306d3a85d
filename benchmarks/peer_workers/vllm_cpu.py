"""vLLM's CPU build: `python vllm_cpu.py CHECKPOINT THREADS DTYPE`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "4", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": sys.argv[2]}
os.environ |= {"VLLM_LOGGING_LEVEL": "WARNING", "HF_HUB_OFFLINE": "1"}

import loop
import torch
from vllm import LLM, SamplingParams


def main() -> None:
    out = loop.take_output()
    directory, threads, dtype = sys.argv[1:]
    torch.set_num_threads(int(threads))
    config = json.loads((Path(directory) / "config.json").read_text(encoding="utf-8"))
    image_ids = [config[f"image_{part}token_id"] for part in ("start_", "", "end_")]
    engine = LLM(
        model=directory,
        dtype=dtype,
        max_model_len=8192,
        max_num_seqs=16,
        enable_prefix_caching=False,
        limit_mm_per_prompt={"image": 1, "video": 0},
        mm_processor_cache_gb=0,
        disable_log_stats=True,
    )

    def generate(prompts: list[list[int]], max_tokens: int, image: str | None) -> None:
        sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True, detokenize=False)
        requests: list[dict[str, object]] = [{"prompt_token_ids": ids} for ids in prompts]
        if image is not None:
            from PIL import Image

            requests = [
                {
                    "prompt_token_ids": [*image_ids, *ids],
                    "multi_modal_data": {"image": Image.open(image).convert("RGB")},
                }
                for ids in prompts
            ]
        results = engine.generate(requests, sampling, use_tqdm=False)
        assert all(len(result.outputs[0].token_ids) == max_tokens for result in results)

    loop.serve(generate, out)


if __name__ == "__main__":
    main()

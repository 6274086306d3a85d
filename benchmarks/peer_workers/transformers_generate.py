"""transformers' `generate`: `python transformers_generate.py CHECKPOINT THREADS DTYPE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import loop
import torch
from transformers import Glm4vForConditionalGeneration, Glm4vImageProcessor


def main() -> None:
    out = loop.take_output()
    directory, threads, dtype = sys.argv[1:]
    torch.set_num_threads(int(threads))
    config = json.loads((Path(directory) / "config.json").read_text(encoding="utf-8"))
    model = Glm4vForConditionalGeneration.from_pretrained(directory, dtype=getattr(torch, dtype)).eval()
    processor = Glm4vImageProcessor.from_pretrained(directory)

    def generate(prompts: list[list[int]], max_tokens: int, image: str | None) -> None:
        extra: dict[str, torch.Tensor] = {}
        if image is not None:
            from PIL import Image

            batch = processor(images=[Image.open(image).convert("RGB")] * len(prompts), return_tensors="pt")
            extra = {"pixel_values": batch["pixel_values"], "image_grid_thw": batch["image_grid_thw"]}
            count = int(batch["image_grid_thw"][0].prod()) // 4
            start, middle, end = (config[f"image_{part}token_id"] for part in ("start_", "", "end_"))
            prompts = [[start, *[middle] * count, end, *ids] for ids in prompts]
            extra["mm_token_type_ids"] = (torch.tensor(prompts) == middle).int()
        ids = torch.tensor(prompts)
        with torch.inference_mode():
            model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=max_tokens,
                min_new_tokens=max_tokens,
                **extra,
            )

    loop.serve(generate, out)


if __name__ == "__main__":
    main()

"""Where an encoder runs and in which precision."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(cls, device: str) -> Placement:
        """ "auto", "cpu" or "cuda" (with an index or without). Raises ValueError when CUDA was asked for in vain."""
        has_cuda = torch.cuda.is_available()
        if device.startswith("cuda") and not has_cuda:
            raise ValueError("device is cuda, but torch finds no CUDA GPU")
        if device == "auto":
            device = "cuda" if has_cuda else "cpu"
        found = torch.device(device)
        return cls(device=found, dtype=torch.bfloat16 if found.type == "cuda" else torch.float32)

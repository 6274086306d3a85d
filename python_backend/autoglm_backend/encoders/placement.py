"""Where an encoder runs and in which precision."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(cls, device: str, dtype: str = "auto") -> Placement:
        """`device`: auto, cpu or cuda (with an index or without). `dtype`: auto (float32 on CPU, bfloat16 on CUDA) or
        torch's name of one. Raises ValueError when CUDA was asked for in vain.
        """
        has_cuda = torch.cuda.is_available()
        if device.startswith("cuda") and not has_cuda:
            raise ValueError("device is cuda, but torch finds no CUDA GPU")
        if device == "auto":
            device = "cuda" if has_cuda else "cpu"
        found = torch.device(device)
        if dtype == "auto":
            dtype = "bfloat16" if found.type == "cuda" else "float32"
        return cls(device=found, dtype=getattr(torch, dtype))

"""What the commands over a checkpoint and a prompt file share: their options, refused before any work."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

DTYPES = ("float32", "bfloat16", "float16")
LEAST_SHARE = 1e-6
Number = TypeVar("Number", int, float)


def _within(kind: Callable[[str], Number], low: Number, high: Number, wanted: str) -> Callable[[str], Number]:
    def read(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            value = None
        # Written so that a NaN is refused.
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} must be {wanted}")
        return value

    return read


whole = _within(int, 1, 2**31 - 1, "a whole number from 1")
seed = _within(int, 0, 2**63 - 1, "a whole number from 0")
risk = _within(float, LEAST_SHARE, 1 - LEAST_SHARE, f"a number from {LEAST_SHARE:f} to {1 - LEAST_SHARE:f}")
share = _within(float, LEAST_SHARE, 1.0, f"a number from {LEAST_SHARE:f} to 1")


def device(text: str) -> str:
    """cpu, cuda or cuda:N, as far as this machine has it."""
    kind, colon, number = text.partition(":")
    if kind not in ("cpu", "cuda") or (colon and (kind == "cpu" or not number.isdecimal())):
        raise argparse.ArgumentTypeError(f"{text!r} must be cpu, cuda or cuda:N")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise argparse.ArgumentTypeError(f"{text!r} is not there: torch finds {torch.cuda.device_count()} CUDA GPUs")
    return text


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """What `train-exits` and `calibrate` both take."""
    parser.add_argument("--checkpoint", type=Path, required=True, help="any GLM-4.1V directory")
    parser.add_argument("--bad-lines", choices=("refuse", "skip"), default="refuse", help="unreadable lines of --data")
    parser.add_argument("--max-tokens", type=whole, default=64, help="longest answer")
    parser.add_argument("--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="precision of the backbone")
    parser.add_argument("--threads", type=whole, default=2)
    parser.add_argument("--seed", type=seed, default=20261121)

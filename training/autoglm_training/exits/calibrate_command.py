"""`autoglm calibrate`: gates, router and certificate for a checkpoint's exits."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from autoglm_backend.models.config import CheckpointError
from autoglm_training.exits.calibrate import NO_EXITS, Answered, Calibration, calibrate, check_enough
from autoglm_training.exits.decoding import Prompt
from autoglm_training.exits.files import save_calibration
from autoglm_training.exits.options import add_common_arguments, risk, whole
from autoglm_training.exits.prompts import DataError, read_prompts, split_prompts
from autoglm_training.exits.quantized import SCHEMES, quantize_as_served
from autoglm_training.exits.router import fit_router
from autoglm_training.exits.traffic import prompts as prompts_of
from autoglm_training.exits.traffic import traffic
from autoglm_training.loading import LoadedCheckpoint, load_checkpoint
from autoglm_training.speech.synth import SynthesisError

FITTING_SHARE = 0.35
DEFAULTS = Calibration()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="autoglm calibrate", description=__doc__)
    add_common_arguments(parser)
    parser.add_argument(
        "--data", type=Path, help="requests, one JSON object a line; default: the phone world's traffic"
    )
    parser.add_argument("--requests", type=whole, default=1000, help="requests drawn from the phone world")
    parser.add_argument("--delta", type=risk, default=DEFAULTS.delta, help="bound on the share of changed answers")
    parser.add_argument("--epsilon", type=risk, default=DEFAULTS.epsilon, help="probability that it does not hold")
    parser.add_argument("--no-margin", action="store_true", help="gates that do not look at the exit's logits")
    parser.add_argument("--quantization", choices=SCHEMES, default="none", help="of the weights, measured as served")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        _calibrate(args)
    except (CheckpointError, DataError, SynthesisError, ValueError, OSError) as error:
        print(f"autoglm calibrate: {error}", file=sys.stderr)
        return 1
    return 0


def _calibrate(args: argparse.Namespace) -> None:
    config = Calibration(
        delta=args.delta,
        epsilon=args.epsilon,
        uses_margin=not args.no_margin,
        max_tokens=args.max_tokens,
        dtype=args.dtype,
        quantization=args.quantization,
        made={"data": "phone world" if args.data is None else args.data.name, "seed": args.seed},
    )
    for_gates = round(FITTING_SHARE * args.requests)
    if args.data is None:
        check_enough(args.requests - for_gates, config)
    loaded = load_checkpoint(args.checkpoint, device=args.device, dtype=getattr(torch, args.dtype))
    if loaded.exits is None:
        raise ValueError(NO_EXITS.format(loaded.directory))
    quantize_as_served(loaded.decoder, args.quantization)
    if args.data is None:
        fitting = prompts_of(traffic(loaded, "train", args.seed, for_gates))
        certifying = prompts_of(traffic(loaded, "validation", args.seed + 1, args.requests - for_gates))
    else:
        fitting, certifying = _split(args, loaded)
        check_enough(len(certifying), config)
    fitted, certified = (Answered.of(loaded, prompts, args.max_tokens) for prompts in (fitting, certifying))
    router = fit_router(loaded, fitted, certified, config)
    print(
        f"router: {round(router.share * router.num_requests)} of {router.num_requests} requests end at depth "
        f"{router.depth} (share {router.share:.3f}), {router.num_mismatches} of {router.num_requests} differ"
    )
    calibrated = calibrate(loaded, fitted, certified, config, _say)
    certificate = save_calibration(args.checkpoint, calibrated.gates, router, calibrated.certificate)
    opened = {depth: bound for depth, bound in certificate.thresholds.items() if bound <= 1}
    print(
        f"certificate: {certificate.num_mismatches} of {certificate.num_requests} requests differ, "
        f"{certificate.mean_layers} layers a token, thresholds {opened or 'closed'}"
    )


def _split(args: argparse.Namespace, loaded: LoadedCheckpoint) -> tuple[list[Prompt], list[Prompt]]:
    """(for the gates, for the certificate): disjoint parts of --data."""
    prompts = read_prompts(args.data, loaded, skip_bad=args.bad_lines == "skip", say=_warn)
    fitting, certifying = split_prompts(prompts, (FITTING_SHARE, 1.0), random.Random(args.seed))
    return fitting, certifying


def _say(text: str) -> None:
    print(text, flush=True)


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())

"""`autoglm export`: put the stages' newest weights together as a checkpoint directory."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from autoglm_backend.models.speech import SpeechEncoder
from autoglm_training.checkpoint import load_modules
from autoglm_training.decoder_model import TrainableDecoder
from autoglm_training.export import CARD, export_checkpoint
from autoglm_training.speech.export import speech_for_decoder
from autoglm_training.tokenizer import load_tokenizer, number_token_ids
from autoglm_training.vision_stage import load_encoder


def newest(*paths: Path) -> Path:
    """The first path that exists. Raises FileNotFoundError naming all of them."""
    for path in paths:
        if path.exists():
            return path
    raise FileNotFoundError(f"none of {', '.join(map(str, paths))} exists: train first")


def export_run(run_dir: Path, speech_dir: Path | None, directory: Path) -> None:
    """Export what `run_dir` holds: joint decoder before text decoder, screens before crops.

    speech_dir: where the speech stages left their encoder; None exports a checkpoint that hears nothing.
    Raises OSError or ValueError; the checkpoint is then as before.
    """
    decoder_path = newest(run_dir / "decoder.pt", run_dir / "decoder_text.pt")
    vision_path = newest(run_dir / "vision.pt", run_dir / "vision_screens.pt", run_dir / "vision_crops.pt")
    tokenizer = load_tokenizer(run_dir / "tokenizer.json")
    model = TrainableDecoder(number_token_ids(tokenizer))
    load_modules(decoder_path, {"model": model})
    speech: SpeechEncoder | None = None
    if speech_dir is not None:
        speech = speech_for_decoder(speech_dir, tokenizer, model.decoder.embed_tokens.weight.detach())
    vision = load_encoder(vision_path)
    gone = export_checkpoint(directory, tokenizer, model.decoder, model.exits, vision, speech)
    print(f"{directory}: decoder from {decoder_path}, vision from {vision_path}, speech from {speech_dir or 'nowhere'}")
    if gone:
        print(f"gone, for they belonged to the old weights: {', '.join(gone)} (`autoglm calibrate` makes new ones)")
    if (directory / CARD).exists():
        print(
            f"{directory / CARD} still speaks of the old weights: `python -m autoglm_training.model_card` rewrites it"
        )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="autoglm export", description=__doc__)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/tiny-cpu"), help="folder of `autoglm train`")
    parser.add_argument("--speech-dir", type=Path, default=Path("runs/speech"), help="folder of the speech stages")
    parser.add_argument("--without-speech", action="store_true", help="export a checkpoint that hears nothing")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=Path("checkpoints/autoglm-phone-tiny"),
        help="the folder to write; a checkpoint there is replaced as a whole, its README.md stays",
    )
    args = parser.parse_args(argv)
    try:
        export_run(args.run_dir, None if args.without_speech else args.speech_dir, args.checkpoint)
    except (ValueError, OSError) as error:
        print(f"autoglm export: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""`python -m autoglm_training.export_command`: put the stages' newest weights together as a checkpoint directory."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from autoglm_backend.models.speech import SpeechEncoder
from autoglm_training.checkpoint import load_modules
from autoglm_training.config.recipes import SPEECH
from autoglm_training.decoder_model import TrainableDecoder
from autoglm_training.export import export_checkpoint
from autoglm_training.speech.export import speech_for_decoder
from autoglm_training.tokenizer import number_token_ids
from autoglm_training.vision_stage import load_encoder


def newest(*paths: Path) -> Path:
    """The first path that exists. Raises FileNotFoundError naming all of them."""
    for path in paths:
        if path.exists():
            return path
    raise FileNotFoundError(f"none of {', '.join(map(str, paths))} exists: train first")


def export_run(run_dir: Path, speech_dir: Path, directory: Path) -> None:
    """Export what `run_dir` holds: joint decoder before text decoder, screens before crops."""
    tokenizer = Tokenizer.from_file(str(run_dir / "tokenizer.json"))
    model = TrainableDecoder(number_token_ids(tokenizer))
    decoder_path = newest(run_dir / "decoder.pt", run_dir / "decoder_text.pt")
    load_modules(decoder_path, {"model": model})
    if (speech_dir / "tokens.pt").exists():
        speech = speech_for_decoder(speech_dir, tokenizer, model.decoder.embed_tokens.weight.detach())
    else:
        speech = SpeechEncoder(SPEECH)
        print(f"{speech_dir} holds no trained encoder: the speech sidecar is random")
    vision = load_encoder(newest(run_dir / "vision.pt", run_dir / "vision_screens.pt", run_dir / "vision_crops.pt"))
    export_checkpoint(directory, tokenizer, model.decoder, model.exits, vision, speech)
    print(f"{directory}: decoder from {decoder_path.name}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="autoglm export", description=__doc__)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/tiny-cpu"))
    parser.add_argument("--speech-dir", type=Path, default=Path("runs/speech"))
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/autoglm-phone-tiny"))
    args = parser.parse_args(argv)
    export_run(args.run_dir, args.speech_dir, args.checkpoint)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

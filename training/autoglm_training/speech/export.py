"""The trained speech encoder as a checkpoint's `speech/` sidecar, and what it hears for the decoder's training.

python -m autoglm_training.speech.export --run runs/speech --run-dir runs/tiny-cpu --checkpoint DIR [--heard]
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from autoglm_backend.models.speech import CONFIG_NAME, SPEECH_DIR, WEIGHTS_NAME, SpeechEncoder
from autoglm_training.speech.heard import bind_embeddings, build_heard, piece_encoder

EMBEDDING_NAME = "decoder.embed_tokens.weight"


def export_speech(encoder: SpeechEncoder, checkpoint_dir: Path) -> Path:
    """Write `speech/speech_config.json` and `speech/speech.safetensors` (bfloat16); returns the folder."""
    folder = checkpoint_dir / SPEECH_DIR
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: p.detach().to(torch.bfloat16).contiguous() for name, p in encoder.named_parameters()}
    partial = folder / (WEIGHTS_NAME + ".partial")
    save_file(weights, partial, metadata={"format": "pt"})
    partial.chmod(0o644)  # safetensors writes for the owner alone
    (folder / CONFIG_NAME).write_text(json.dumps(asdict(encoder.config), indent=2) + "\n", encoding="utf-8")
    os.replace(partial, folder / WEIGHTS_NAME)
    return folder


def speech_for_decoder(speech_run: Path, tokenizer: Tokenizer, embeddings_VD: torch.Tensor) -> SpeechEncoder:
    """The trained encoder that speaks to a decoder with these token embeddings, ready for `export_speech`."""
    encoder, piece_ids = piece_encoder(speech_run, tokenizer)
    bind_embeddings(encoder, piece_ids, embeddings_VD)
    return encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of the speech stages")
    parser.add_argument("--run-dir", type=Path, required=True, help="folder of the decoder stages")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--heard", action="store_true", help="also write heard-*.jsonl for the decoder's training")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_file(str(options.run_dir / "tokenizer.json"))
    decoder = next(path for name in ("decoder.pt", "decoder_text.pt") if (path := options.run_dir / name).exists())
    # Our own file: it holds Python's random state, which the weights-only loader refuses.
    embeddings_VD = torch.load(decoder, map_location="cpu", weights_only=False)["modules"]["model"][EMBEDDING_NAME]
    export_speech(speech_for_decoder(options.run, tokenizer, embeddings_VD), options.checkpoint)
    if options.heard:
        encoder, piece_ids = piece_encoder(options.run, tokenizer)
        for split in ("test", "train"):
            shards = sorted(options.run.glob(f"tasks-{split}-*.npz"))
            build_heard(encoder, piece_ids, shards, options.run / f"heard-{split}.jsonl", split)


if __name__ == "__main__":
    main()

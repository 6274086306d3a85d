"""Shapes of a GLM-4.1V checkpoint, read from its `config.json`.

Both generations of the file are understood: `rope_theta`/`rope_scaling`/`partial_rotary_factor` beside the sizes
(before October 2025) and one `rope_parameters` table (after). Anything missing is an error that names the field: a
silently defaulted rotary setting shifts every tap and raises nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class CheckpointError(ValueError):
    """A checkpoint directory that cannot be served; the message names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    max_positions: int
    rms_norm_eps: float
    rope_theta: float
    rotary_dim: int
    """Leading dimensions of each head that rotate; the rest pass through."""
    mrope_section: tuple[int, int, int]
    """Frequencies that follow the temporal, row and column axis; they sum to rotary_dim / 2."""
    tie_word_embeddings: bool

    def __post_init__(self) -> None:
        if sum(self.mrope_section) * 2 != self.rotary_dim:
            raise CheckpointError(
                f"config.json: mrope_section {list(self.mrope_section)} must sum to half of "
                f"the rotary dimension {self.rotary_dim}"
            )
        if self.hidden_size % self.num_heads or self.num_heads % self.num_kv_heads:
            raise CheckpointError(
                f"config.json: {self.num_heads} heads with {self.num_kv_heads} KV heads do not divide "
                f"hidden_size {self.hidden_size}"
            )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionConfig:
    depth: int
    hidden_size: int
    num_heads: int
    image_size: int
    """Side in pixels of the square that the learned position grid stands for."""
    patch_size: int
    temporal_patch_size: int
    spatial_merge_size: int
    in_channels: int
    out_hidden_size: int
    intermediate_size: int
    """Width of the merger; the blocks' own MLP is `out_hidden_size` wide (transformers' Glm4VisionMlp)."""
    rms_norm_eps: float
    rope_theta: float
    attention_bias: bool

    @property
    def patch_dim(self) -> int:
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    @property
    def grid_side(self) -> int:
        return self.image_size // self.patch_size


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechConfig:
    """Our own encoder, in the shape of GLM-ASR's: convolutions, rotary encoder layers, four frames to a token."""

    num_mels: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    frames_per_token: int
    """Encoder frames of 20 ms that are stacked into one decoder token (4: 12.5 tokens a second)."""
    out_hidden_size: int
    num_pieces: int = 0
    """Text pieces that the encoder spells; 0: the projector's tokens go to the decoder as they are."""
    rope_theta: float = 10000.0
    rotary_fraction: float = 0.5
    layer_norm_eps: float = 1e-5

    def num_tokens(self, num_frames: int) -> int:
        """Decoder tokens that a clip of `num_frames` mel frames of 10 ms becomes."""
        return -(-((num_frames + 1) // 2) // self.frames_per_token)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    text: TextConfig
    vision: VisionConfig
    image_token_id: int
    image_start_token_id: int
    image_end_token_id: int
    video_token_id: int
    eos_token_ids: tuple[int, ...]
    pad_token_id: int


def load_model_config(checkpoint_dir: Path) -> ModelConfig:
    """Read `config.json` (and `generation_config.json` for the stop ids). Raises CheckpointError."""
    path = checkpoint_dir / "config.json"
    raw = _read_json(path)
    if raw.get("model_type") != "glm4v":
        raise CheckpointError(f"{path}: model_type is {raw.get('model_type')!r}, this server runs 'glm4v' (GLM-4.1V)")
    try:
        text, vision = raw["text_config"], raw["vision_config"]
        generation_path = checkpoint_dir / "generation_config.json"
        generation = _read_json(generation_path) if generation_path.exists() else {}
        eos = generation.get("eos_token_id", text.get("eos_token_id", raw.get("eos_token_id")))
        if eos is None:
            raise CheckpointError(f"{path}: eos_token_id is missing")
        eos_ids = tuple(eos) if isinstance(eos, list) else (eos,)
        return ModelConfig(
            text=_text_config(raw, text),
            vision=_vision_config(vision),
            image_token_id=raw["image_token_id"],
            image_start_token_id=raw["image_start_token_id"],
            image_end_token_id=raw["image_end_token_id"],
            video_token_id=raw["video_token_id"],
            eos_token_ids=eos_ids,
            pad_token_id=text.get("pad_token_id") if text.get("pad_token_id") is not None else eos_ids[0],
        )
    except KeyError as missing:
        raise CheckpointError(f"{path}: {missing.args[0]} is missing") from missing


def load_speech_config(path: Path) -> SpeechConfig:
    """Read the speech sidecar's `speech_config.json`. Raises CheckpointError."""
    try:
        return SpeechConfig(**_read_json(path))
    except TypeError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return value


def _text_config(raw: Mapping[str, Any], text: Mapping[str, Any]) -> TextConfig:
    rope = _rope_table(text)
    head_dim = text["hidden_size"] // text["num_attention_heads"]
    return TextConfig(
        vocab_size=text["vocab_size"],
        hidden_size=text["hidden_size"],
        intermediate_size=text["intermediate_size"],
        num_layers=text["num_hidden_layers"],
        num_heads=text["num_attention_heads"],
        num_kv_heads=text["num_key_value_heads"],
        max_positions=text["max_position_embeddings"],
        rms_norm_eps=text["rms_norm_eps"],
        rope_theta=float(rope["rope_theta"]),
        rotary_dim=int(head_dim * rope["partial_rotary_factor"]),
        mrope_section=tuple(rope["mrope_section"]),
        # transformers before 5.0 wrote the flag inside text_config.
        tie_word_embeddings=bool(raw.get("tie_word_embeddings") or text.get("tie_word_embeddings")),
    )


def _rope_table(text: Mapping[str, Any]) -> dict[str, Any]:
    if "rope_parameters" in text:
        table = dict(text["rope_parameters"])
    else:
        table = {**(text["rope_scaling"] or {}), "rope_theta": text["rope_theta"]}
    # The factor moved between the two tables and the top level across transformers releases.
    table.setdefault("partial_rotary_factor", text.get("partial_rotary_factor"))
    rope_type = table.get("rope_type", table.get("type", "default"))
    if rope_type not in ("default", "mrope"):
        raise CheckpointError(f"config.json: rope_type {rope_type!r} is not supported (only the default M-RoPE is)")
    for name in ("rope_theta", "partial_rotary_factor", "mrope_section"):
        if table.get(name) is None:
            raise CheckpointError(f"config.json: text_config has no {name}")
    return table


def _vision_config(vision: Mapping[str, Any]) -> VisionConfig:
    return VisionConfig(
        depth=vision["depth"],
        hidden_size=vision["hidden_size"],
        num_heads=vision["num_heads"],
        image_size=vision["image_size"],
        patch_size=vision["patch_size"],
        temporal_patch_size=vision["temporal_patch_size"],
        spatial_merge_size=vision["spatial_merge_size"],
        in_channels=vision["in_channels"],
        out_hidden_size=vision["out_hidden_size"],
        intermediate_size=vision["intermediate_size"],
        rms_norm_eps=vision["rms_norm_eps"],
        rope_theta=float((vision.get("rope_parameters") or {}).get("rope_theta", 10000.0)),
        attention_bias=vision.get("attention_bias", False),
    )

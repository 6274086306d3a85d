"""Shapes of a GLM-4.1V checkpoint, read from its `config.json`.

Both generations of the file are understood: `rope_theta`/`rope_scaling`/`partial_rotary_factor` beside the sizes
(before October 2025) and one `rope_parameters` table (after). Anything missing, contradictory or of another kind is an
error that names the field: a silently defaulted rotary setting shifts every tap and raises nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoglm_backend.models.json_table import CheckpointError, JsonTable, read_json_object


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
    num_ranks: int = 1
    """Tensor-parallel ranks; heads, KV heads and intermediate_size are what one of them has (models/parallel.py)."""

    def __post_init__(self) -> None:
        if self.hidden_size % (self.num_heads * self.num_ranks) or self.num_heads % self.num_kv_heads:
            raise CheckpointError(
                f"config.json: {self.num_heads} heads with {self.num_kv_heads} KV heads do not divide "
                f"hidden_size {self.hidden_size}"
            )
        if self.rotary_dim % 2 or not 0 < self.rotary_dim <= self.head_dim:
            raise CheckpointError(
                f"config.json: partial_rotary_factor lets {self.rotary_dim} of {self.head_dim} head dimensions "
                "rotate, which must be an even number from 2"
            )
        if sum(self.mrope_section) * 2 != self.rotary_dim:
            raise CheckpointError(
                f"config.json: mrope_section {list(self.mrope_section)} must sum to half of "
                f"the rotary dimension {self.rotary_dim}"
            )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // (self.num_heads * self.num_ranks)


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
    piece_token_ids: tuple[int, ...] = ()
    """The decoder's token of each piece, so that what was heard can be written down; empty: unknown."""
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
    raw = JsonTable(read_json_object(path), path)
    if raw.get("model_type") != "glm4v":
        raise CheckpointError(f"{path}: model_type is {raw.get('model_type')!r}, this server runs 'glm4v' (GLM-4.1V)")
    text, vision = raw.table("text_config"), raw.table("vision_config")
    generation_path = checkpoint_dir / "generation_config.json"
    generation = JsonTable(read_json_object(generation_path) if generation_path.exists() else {}, generation_path)
    source = next((table for table in (generation, text, raw) if table.get("eos_token_id") is not None), None)
    if source is None:
        raise CheckpointError(f"{path}: eos_token_id is missing")
    eos_ids = source.whole_numbers("eos_token_id")
    config = ModelConfig(
        text=_text_config(raw, text),
        vision=_vision_config(vision),
        image_token_id=raw.whole("image_token_id"),
        image_start_token_id=raw.whole("image_start_token_id"),
        image_end_token_id=raw.whole("image_end_token_id"),
        video_token_id=raw.whole("video_token_id"),
        eos_token_ids=eos_ids,
        pad_token_id=text.whole("pad_token_id") if text.get("pad_token_id") is not None else eos_ids[0],
    )
    _check_model(config, path)
    return config


def load_speech_config(path: Path) -> SpeechConfig:
    """Read the speech sidecar's `speech_config.json`. Raises CheckpointError."""
    raw = read_json_object(path)
    try:
        config = SpeechConfig(**{**raw, "piece_token_ids": tuple(raw.get("piece_token_ids", ()))})
    except TypeError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if config.piece_token_ids and len(config.piece_token_ids) != config.num_pieces:
        raise CheckpointError(
            f"{path}: piece_token_ids has {len(config.piece_token_ids)} entries for {config.num_pieces} pieces"
        )
    return config


def _text_config(raw: JsonTable, text: JsonTable) -> TextConfig:
    _require(text, "hidden_act", "silu")
    num_heads, hidden_size = text.whole("num_attention_heads"), text.whole("hidden_size")
    head_dim = hidden_size // max(1, num_heads)
    _require(text, "head_dim", head_dim)
    theta, factor, section = _rope(text)
    return TextConfig(
        vocab_size=text.whole("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=text.whole("intermediate_size"),
        num_layers=text.whole("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=text.whole("num_key_value_heads"),
        max_positions=text.whole("max_position_embeddings"),
        rms_norm_eps=text.number("rms_norm_eps"),
        rope_theta=theta,
        rotary_dim=int(head_dim * factor),
        mrope_section=section,
        # transformers before 5.0 wrote the flag inside text_config.
        tie_word_embeddings=bool(raw.get("tie_word_embeddings") or text.get("tie_word_embeddings")),
    )


def _rope(text: JsonTable) -> tuple[float, float, tuple[int, int, int]]:
    """Theta, partial rotary factor and M-RoPE section. They moved between three places across transformers releases;
    a file that says them twice must say the same, since whoever reads the other place would serve another model."""
    tables = [text.table(name) for name in ("rope_parameters", "rope_scaling") if text.get(name) is not None]
    for table in tables:
        rope_type = table.get("rope_type") or table.get("type") or "default"
        if rope_type not in ("default", "mrope"):
            raise table.error("rope_type", f"is {rope_type!r}, only the default M-RoPE is supported")
        if table.get("mrope_interleaved"):
            raise table.error("mrope_interleaved", "is set, GLM-4.1V's sections lie one behind the other")
    places = (*tables, text)

    def only(name: str) -> JsonTable:
        holders = [table for table in places if table.get(name) is not None]
        if not holders:
            raise text.error(name, "is missing")
        for other in holders[1:]:
            if other.get(name) != holders[0].get(name):
                raise other.error(name, f"is {other.get(name)!r}, but another place says {holders[0].get(name)!r}")
        return holders[0]

    holder = only("mrope_section")
    section = holder.whole_numbers("mrope_section")
    if len(section) != 3:
        raise holder.error("mrope_section", f"is {list(section)}, must be three numbers: time, rows, columns")
    factor = only("partial_rotary_factor").number("partial_rotary_factor")
    return only("rope_theta").number("rope_theta"), factor, (section[0], section[1], section[2])


def _vision_config(vision: JsonTable) -> VisionConfig:
    _require(vision, "hidden_act", "silu")
    rope = vision.table("rope_parameters") if vision.get("rope_parameters") is not None else None
    return VisionConfig(
        depth=vision.whole("depth"),
        hidden_size=vision.whole("hidden_size"),
        num_heads=vision.whole("num_heads"),
        image_size=vision.whole("image_size"),
        patch_size=vision.whole("patch_size"),
        temporal_patch_size=vision.whole("temporal_patch_size"),
        spatial_merge_size=vision.whole("spatial_merge_size"),
        in_channels=vision.whole("in_channels"),
        out_hidden_size=vision.whole("out_hidden_size"),
        intermediate_size=vision.whole("intermediate_size"),
        rms_norm_eps=vision.number("rms_norm_eps"),
        rope_theta=rope.number("rope_theta") if rope is not None else 10000.0,
        attention_bias=bool(vision.get("attention_bias")),
    )


def _require(table: JsonTable, name: str, supported: Any) -> None:
    value = table.get(name)
    if value not in (None, supported):
        raise table.error(name, f"is {value!r}, this server runs {supported!r} only")


def _check_model(config: ModelConfig, path: Path) -> None:
    text, vision = config.text, config.vision
    if vision.out_hidden_size != text.hidden_size:
        raise CheckpointError(
            f"{path}: vision_config.out_hidden_size is {vision.out_hidden_size}, "
            f"text_config.hidden_size is {text.hidden_size}; they must be equal"
        )
    if vision.hidden_size % (4 * max(1, vision.num_heads)):
        raise CheckpointError(
            f"{path}: vision_config.num_heads {vision.num_heads} does not divide hidden_size {vision.hidden_size} "
            "into heads of a multiple of 4"
        )
    ids = {
        "image_token_id": (config.image_token_id,),
        "image_start_token_id": (config.image_start_token_id,),
        "image_end_token_id": (config.image_end_token_id,),
        "video_token_id": (config.video_token_id,),
        "eos_token_id": config.eos_token_ids,
    }
    for name, values in ids.items():
        if any(not 0 <= value < text.vocab_size for value in values):
            raise CheckpointError(f"{path}: {name} {list(values)} lies outside the vocabulary of {text.vocab_size}")

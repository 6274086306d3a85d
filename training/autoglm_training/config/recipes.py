"""The recipes: shapes of the default checkpoint and the schedule of each training stage."""

from __future__ import annotations

from dataclasses import dataclass

from autoglm_backend.models.config import SpeechConfig, TextConfig, VisionConfig

HEAD_DIM = 32
EXIT_DEPTHS = (6, 12, 18)
EXIT_ADAPTER_SIZE = 64

TEXT = TextConfig(
    vocab_size=4096,
    hidden_size=192,
    intermediate_size=512,
    num_layers=24,
    num_heads=6,
    num_kv_heads=2,
    max_positions=16384,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    rotary_dim=HEAD_DIM // 2,
    mrope_section=(2, 3, 3),
    tie_word_embeddings=True,
)
VISION = VisionConfig(
    depth=6,
    hidden_size=192,
    num_heads=6,
    image_size=336,
    patch_size=14,
    temporal_patch_size=2,
    spatial_merge_size=2,
    in_channels=3,
    out_hidden_size=192,
    intermediate_size=512,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    attention_bias=False,
)
SPEECH = SpeechConfig(
    num_mels=80,
    hidden_size=192,
    num_layers=4,
    num_heads=6,
    intermediate_size=512,
    frames_per_token=4,
    out_hidden_size=192,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageConfig:
    """One stage's schedule: linear warm-up, then a fall from `peak_lr` to `final_lr`, linear or along a `cosine`.

    slow_share: of the rate, for the parameters that a stage only tunes along.
    """

    steps: int
    peak_lr: float
    final_lr: float
    warmup_steps: int = 200
    weight_decay: float = 0.01
    cosine: bool = False
    slow_share: float = 1.0
    clip_norm: float = 1.0
    save_every_s: float = 120.0
    log_every: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What a decoder stage minimises: alpha * cross entropy + beta * KL to a teacher + gamma * rounding error.

    temperature: softens teacher and student. rounds_weights: run on int8 weights (straight-through).
    layer_dropout: how often the last layer is left out in training; layers above it less, the first never (LayerSkip).
    """

    alpha: float = 1.0
    beta: float = 0.0
    gamma: float = 0.0
    temperature: float = 2.0
    rounds_weights: bool = False
    layer_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "gamma"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, must not be negative")
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}, must be above 0")
        if not 0 <= self.layer_dropout < 1:
            raise ValueError(f"layer_dropout is {self.layer_dropout}, must be from 0 to below 1")


PLAIN = Objective()


@dataclass(frozen=True, slots=True, kw_only=True)
class CropStage(StageConfig):
    """Text crops: `batch_tokens` merged tokens a step, one crop size a step."""

    batch_tokens: int = 1152
    sizes_px: tuple[tuple[int, int], ...] = (
        (112, 56),
        (168, 56),
        (140, 84),
        (196, 84),
        (280, 112),
        (168, 168),
        (280, 224),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreenStage(StageConfig):
    """Whole screens with crops mixed in, so that reading is not forgotten."""

    batch_screens: int = 8
    crop_share: float = 0.4
    compared_share: float = 0.5
    """Screens drawn from the templates that hold prices or bars, beside those of the natural mix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechStage(StageConfig):
    """Spoken clips, `batch_seconds` of sound a step."""

    batch_seconds: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SpokenClips:
    """How many shards (see `speech/clips.py`) are spoken of each corpus, and clips in one."""

    train_shards: int = 14
    test_shards: int = 1
    train_clips: int = 1000
    test_clips: int = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderStage(StageConfig):
    """Decoder rows. depth_weights: how often a step runs 6, 12, 18 or 24 layers."""

    text_tokens: int = 2048
    depth_weights: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    grown: bool = False
    """Whether layers below the sampled depth are trained too (then full depth is learnt only by running it)."""
    objective: Objective = PLAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class JointStage(DecoderStage):
    """Text, screens and speech in every step, each in a batch of its own."""

    screens: int = 6
    fresh_screens: int = 1
    """Screens a step that were never seen; the others come again with new instructions."""
    branches: int = 8
    pool_screens: int = 500
    screen_weight: float = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    name: str
    seed: int
    device: str
    precision: str
    """bf16, fp16 (with dynamic loss scaling) or fp32."""
    crops: CropStage
    screens: ScreenStage
    ctc: SpeechStage
    tokens: SpeechStage
    text: DecoderStage
    joint: JointStage
    clips: SpokenClips = SpokenClips()


TINY_CPU = Recipe(
    name="tiny-cpu",
    seed=20261121,
    device="cpu",
    precision="bf16",
    crops=CropStage(steps=1500, peak_lr=2e-3, final_lr=1e-4),
    screens=ScreenStage(steps=800, peak_lr=1e-3, final_lr=5e-5, warmup_steps=50),
    ctc=SpeechStage(steps=8000, peak_lr=1e-3, final_lr=2e-5, warmup_steps=400, cosine=True),
    tokens=SpeechStage(steps=3000, peak_lr=1e-3, final_lr=2e-5, cosine=True, slow_share=0.5),
    text=DecoderStage(steps=1400, peak_lr=2e-3, final_lr=2e-4, warmup_steps=100),
    joint=JointStage(
        steps=1500,
        peak_lr=1.2e-3,
        final_lr=5e-5,
        warmup_steps=50,
        text_tokens=1280,
        depth_weights=(0.6, 0.12, 0.1, 0.18),
        grown=True,
        fresh_screens=2,
        pool_screens=1000,
    ),
)
# The same shapes and stages with larger batches, every exit trained in every step, and many times the data.
TINY_GPU = Recipe(
    name="tiny-gpu",
    seed=20261121,
    device="cuda",
    precision="bf16",
    crops=CropStage(steps=4000, peak_lr=2e-3, final_lr=1e-4, batch_tokens=9216),
    screens=ScreenStage(steps=8000, peak_lr=1e-3, final_lr=2e-5, batch_screens=32),
    ctc=SpeechStage(steps=8000, peak_lr=1e-3, final_lr=2e-5, warmup_steps=400, cosine=True, batch_seconds=80.0),
    tokens=SpeechStage(steps=6000, peak_lr=1e-3, final_lr=2e-5, cosine=True, slow_share=0.5, batch_seconds=80.0),
    text=DecoderStage(steps=4000, peak_lr=2e-3, final_lr=2e-4, text_tokens=16384),
    joint=JointStage(
        steps=20000,
        peak_lr=1.2e-3,
        final_lr=2e-5,
        text_tokens=16384,
        depth_weights=(0.0, 0.0, 0.0, 1.0),
        grown=True,
        screens=24,
        fresh_screens=6,
        pool_screens=6000,
        objective=Objective(layer_dropout=0.1),
    ),
)
RECIPES = {recipe.name: recipe for recipe in (TINY_CPU, TINY_GPU)}

"""What a deployment sets at once: image budget, default depth, precision, memory. `--profile` picks one by name.

The launcher applies the switches that were given on top and hands the result to every Triton model as the JSON
parameter `profile`. Imports the standard library only: `autoglm serve --help` needs no set-up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")
QUANTIZATIONS = ("auto", "none", "int8", "int4", "fp8")
EXITS = ("fixed", "lossless", "certified")
DEPTH_WORDS = ("auto", "full")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The deployment's say. Raises ValueError naming the field and its values."""

    name: str = "standard"
    max_pixels: int | None = None
    """Most pixels of a picture after resizing, 784 to a token at GLM-4.1V's patches; None is the checkpoint's own."""
    min_pixels: int | None = None
    """Fewer are scaled up to this; None is the checkpoint's own."""
    default_depth: str = "auto"
    """For requests that name none: auto, full, or a number of layers."""
    default_exit: str | None = None
    """For requests that name none: fixed, lossless or certified; None is the planner's choice."""
    dtype: str = "auto"
    """Of decoder and encoders; auto is float32 on CPU, bfloat16 on CUDA."""
    quantization: str = "auto"
    """Of the decoder's weights; auto leaves it to the engine."""
    max_batch_size: int | None = None
    """Sequences that decode together; None is the engine's default."""
    kv_cache_tokens: int | None = None
    """Tokens whose keys and values fit in the cache; None is the engine's default."""
    offload_encoders_s: float | None = None
    """Encoders that nobody used for so long give their memory back; None keeps them."""

    def __post_init__(self) -> None:
        for name, choices in (("dtype", DTYPES), ("quantization", QUANTIZATIONS), ("default_exit", (None, *EXITS))):
            value = getattr(self, name)
            if value not in choices:
                listed = ", ".join(str(choice) for choice in choices if choice is not None)
                raise ValueError(f"{name} is {value!r}, must be one of {listed}")
        for name in ("max_pixels", "min_pixels", "max_batch_size", "kv_cache_tokens"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"{name} is {value!r}, must be a whole number from 1")
        if self.max_pixels is not None and self.min_pixels is not None and self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels is {self.min_pixels}, more than max_pixels {self.max_pixels}")
        if self.default_depth not in DEPTH_WORDS and not (self.default_depth.isdecimal() and int(self.default_depth)):
            raise ValueError(f"default_depth is {self.default_depth!r}, must be auto, full or a number of layers")
        if self.offload_encoders_s is not None and not 0 < self.offload_encoders_s < float("inf"):
            raise ValueError(f"offload_encoders_s is {self.offload_encoders_s}, must be a number of seconds above 0")

    @property
    def engine_options(self) -> dict[str, Any]:
        """What of this the decoder's EngineOptions take, without what is left to their defaults."""
        options = {
            "dtype": self.dtype,
            "quantization": self.quantization,
            "max_batch_size": self.max_batch_size,
            "kv_cache_tokens": self.kv_cache_tokens,
        }
        return {name: value for name, value in options.items() if value not in (None, "auto")}

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Profile:
        """Raises ValueError naming an unknown or wrong field: a typo in a deployment must not become a default."""
        raw: Any = json.loads(text)
        if not isinstance(raw, dict):
            raise ValueError("the profile is no JSON object")
        known = {f.name for f in fields(cls)}
        for name in raw:
            if name not in known:
                raise ValueError(f"{name} is not a field of a profile; there are {', '.join(sorted(known))}")
        try:
            return cls(**raw)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"the profile has a field of a wrong type: {error}") from error


STANDARD = Profile()
"""Without `--profile`: the checkpoint's own settings."""

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        # A few users, little memory: int8 weights and bfloat16 for the rest (9B: 12 GB instead of 21), a third of the
        # image tokens of a full screenshot, shallow depth for short commands, encoders in memory only while in use.
        "mobile": Profile(
            name="mobile",
            max_pixels=600 * 784,
            default_depth="auto",
            default_exit="fixed",
            dtype="bfloat16",
            quantization="int8",
            max_batch_size=4,
            kv_cache_tokens=16_384,  # 0.7 GB at the 9B shape in bfloat16
            offload_encoders_s=30.0,
        ),
        # One machine: int8 lets the 9B shape and its cache fit a 24 GB card (16 GB: `mobile`, or fewer cached tokens);
        # half of a full screenshot's tokens; depth may only be spared where the answer stays the same.
        "edge": Profile(
            name="edge",
            max_pixels=1_500 * 784,
            default_depth="auto",
            quantization="int8",
            max_batch_size=16,
            kv_cache_tokens=65_536,  # 2.7 GB at the 9B shape in bfloat16
            offload_encoders_s=300.0,
        ),
        # Large cards: the checkpoint's own precision and pixels, every layer, encoders always at hand.
        "cloud": Profile(name="cloud", default_depth="full", dtype="bfloat16", quantization="none", max_batch_size=64),
    }
)

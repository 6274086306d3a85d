"""What an operator may set about the engine; every default lives here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from autoglm_backend.cpus import usable_cpus
from autoglm_backend.profiles import DTYPES, QUANTIZATIONS

_COUNTS = (
    "max_batch_size",
    "max_step_tokens",
    "max_waiting",
    "block_tokens",
    "kv_cache_tokens",
    "tensor_parallel_size",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    device: str = "auto"
    """auto, cpu or cuda."""
    dtype: str = "auto"
    """auto (float32 on CPU, bfloat16 on CUDA), float32, bfloat16 or float64 (tests)."""
    quantization: str = "auto"
    """Of the decoder's weights: auto (none), none, int8, int4 (CPU) or fp8 (GPU)."""
    max_batch_size: int = 32
    """Sequences that decode together."""
    max_step_tokens: int = 512
    """Tokens of one step, prefill chunks included: bounds how long a prompt can hold up other streams."""
    max_waiting: int = 256
    """Requests that may queue; one more is refused."""
    dynamic_batching: bool = True
    """False runs one request at a time, for comparison."""
    block_tokens: int = 32
    kv_cache_tokens: int = 131072
    """Tokens whose keys and values fit in the cache, over all sequences."""
    prefix_cache: bool = True
    max_drafts: int = 7
    """Most tokens that lossless mode guesses before it checks them; 0 turns guessing off."""
    draft_vocab: bool = True
    """Let drafts use the checkpoint's trimmed vocabulary (`exits/draft_vocab.safetensors`) where it has one."""
    shadow_share: float = 0.02
    """Of finished certified requests, the share that is run again at full depth to watch the certificate, 0 to 1."""
    tensor_parallel_size: int = 1
    """Devices (on CPU: processes) that share every layer."""
    max_model_len: int | None = None
    """Context limit in tokens; None is the checkpoint's."""
    threads: int | None = None
    """Torch threads of the decoder process; None is one per CPU that the process may use."""
    cuda_graphs: bool = True
    """Replay captured graphs for small steps; on one GPU only (engine/graphs.py)."""
    sparse_prefill: int | None = None
    """Keys that each block of a prompt's tokens may read (engine/sparse_prefill.py); None reads all, as trained."""
    ageing_s: float = 2.0
    """Waiting this long is worth one priority level, so batch work is never starved."""

    def __post_init__(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} is {value!r}, must be a whole number from 1")
        for name in ("max_model_len", "threads", "sparse_prefill"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"{name} is {value!r}, must be a whole number from 1")
        if not 0 <= self.shadow_share <= 1:
            raise ValueError(f"shadow_share is {self.shadow_share}, must lie between 0 and 1")
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device is {self.device!r}, must be auto, cpu or cuda")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}, must be one of {', '.join(DTYPES)}")
        if self.quantization not in QUANTIZATIONS:
            raise ValueError(f"quantization is {self.quantization!r}, must be one of {', '.join(QUANTIZATIONS)}")

    @property
    def batch_limit(self) -> int:
        return self.max_batch_size if self.dynamic_batching else 1

    @property
    def num_blocks(self) -> int:
        """Blocks of the key/value cache."""
        return -(-self.kv_cache_tokens // self.block_tokens)

    @property
    def num_threads(self) -> int:
        return self.threads or usable_cpus()

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> EngineOptions:
        """Unknown keys are an error: a typo in a deployment must not become a default."""
        known = {f.name for f in fields(cls)}
        for name in raw:
            if name not in known:
                raise ValueError(f"{name} is not an engine option; there are {', '.join(sorted(known))}")
        return cls(**raw)

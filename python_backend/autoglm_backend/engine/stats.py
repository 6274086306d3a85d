"""What the engine counts about itself. Written by its thread, read by any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from autoglm_backend.engine.exits import Agreement


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    num_running: int
    num_waiting: int
    kv_usage: float
    """Share of key/value blocks that live requests own, 0 to 1."""
    kv_bytes: int
    """Key/value memory that live requests own."""
    kv_bytes_peak: int
    """The most of it since the start."""
    prefix_queries: int
    """Prompt tokens looked up in the prefix cache since the start."""
    prefix_hits: int
    num_preemptions: int
    num_steps: int
    tokens_by_depth: Mapping[int, int]
    """Generated tokens by the layers they needed."""
    layer_steps: int
    """Layers run over all tokens of ended requests, wrong drafts and late tokens included."""
    drafts_proposed: int
    drafts_accepted: int
    certified_active: bool
    """False without a certificate, and after shadow checks found more mismatches than it allows."""
    shadow_checked: int
    """Certified answers that were run again at full depth."""
    shadow_agreed: int
    late_checked: int
    """Tokens that left early and were met again by the pass that filled in their deep keys and values."""
    late_agreed: int
    involuntary_exits: int
    """Tokens that left below their gate's threshold: anything but 0 is a bug."""


@dataclass(slots=True, kw_only=True)
class Counters:
    """The engine thread's own counts."""

    num_steps: int = 0
    tokens_by_depth: Counter[int] = field(default_factory=Counter[int])
    layer_steps: int = 0
    drafts_proposed: int = 0
    drafts_accepted: int = 0
    late: Agreement = field(default_factory=Agreement)
    involuntary_exits: int = 0

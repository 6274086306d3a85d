"""Narrower attention, where a checkpoint was trained to bear it: what a token still reads of the text before it.

A token reads the text's first `sink_tokens` tokens (attention's sink: without them the softmax loses its anchor, Xiao
et al. 2023, "Efficient streaming language models with attention sinks") and the last `tokens` tokens, itself included.
That holds for tokens of the prompt as for generated ones, in every layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autoglm_backend.models.json_table import JsonTable, read_json_object

SINK_TOKENS = 64
"""Where `exits.json` names no number: the opening of the system prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionWindow:
    tokens: int
    """Nearest tokens that are read, the reading one included."""
    sink_tokens: int
    """First tokens of the text, read always."""

    @property
    def num_unchanged(self) -> int:
        """Leading tokens of a text for which the window changes nothing."""
        return self.tokens + self.sink_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowOffer:
    """What a checkpoint allows."""

    least: int
    """The narrowest window in tokens."""
    sink_tokens: int

    def window(self, tokens: int) -> AttentionWindow:
        return AttentionWindow(tokens=tokens, sink_tokens=self.sink_tokens)


def load_window_offer(checkpoint_dir: Path) -> WindowOffer | None:
    """What `exits/exits.json` says in {"attention_window": {"least": N, "sink": M}} (sink: SINK_TOKENS where missing),
    else `sliding_window` of `config.json` (no sink), else None. Raises CheckpointError naming file and field.
    """
    path = checkpoint_dir / "exits" / "exits.json"
    exits = JsonTable(read_json_object(path), path) if path.exists() else None
    if exits is not None and exits.get("attention_window") is not None:
        table = exits.table("attention_window")
        sink_tokens = SINK_TOKENS if table.get("sink") is None else table.whole("sink")
        return WindowOffer(least=_least(table, "least"), sink_tokens=sink_tokens)
    path = checkpoint_dir / "config.json"
    if not path.exists():  # whoever needs the model's shapes says so
        return None
    config = JsonTable(read_json_object(path), path)
    text = config if config.get("text_config") is None else config.table("text_config")
    if text.get("sliding_window") is None or text.get("use_sliding_window") is False:
        return None
    return WindowOffer(least=_least(text, "sliding_window"), sink_tokens=0)


def _least(table: JsonTable, name: str) -> int:
    least = table.whole(name)
    if least < 1:
        raise table.error(name, f"is {least}, must be at least 1")
    return least

"""The plan of an answer and its speed, in one line under it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from autoglm_client.reply import ActionReply

_ENCODERS = {"vision_encoder": "vision", "speech_encoder": "speech"}


def plan_line(reply: ActionReply) -> str:
    """`24 of 24 layers · vision run · speech skipped · first token 412 ms · 38 tokens/s`; only what is known.

    Tokens per second are over the whole answer, see `ActionReply.tokens_per_s`.
    """
    parts = graph_parts(reply.dynamic_graph) if reply.dynamic_graph is not None else []
    if reply.first_token_s is not None:
        parts.append(f"first token {reply.first_token_s * 1000:.0f} ms")
    if reply.tokens_per_s is not None:
        parts.append(f"{reply.tokens_per_s:.0f} tokens/s")
    if reply.finish_reason.value == "length":
        parts.append(f"cut off after {reply.usage.completion_tokens} tokens")
    return " · ".join(parts)


def graph_parts(graph: Mapping[str, Any]) -> list[str]:
    parts: list[str] = []
    if "depth" in graph and "num_layers" in graph:
        mode = "" if graph.get("exit_mode") in (None, "fixed") else f" ({graph['exit_mode']})"
        parts.append(f"{graph['depth']} of {graph['num_layers']} layers{mode}")
    if "encoders_run" in graph and "encoders_skipped" in graph:
        for name, word in _ENCODERS.items():
            if name in _names(graph["encoders_run"]):
                parts.append(f"{word} run")
            else:
                parts.append(f"{word} skipped" if name in _names(graph["encoders_skipped"]) else f"{word} from cache")
    return parts


def depth_line(graph: Mapping[str, Any]) -> str:
    """`a token needed 8.3 of 24 layers · 21 of 24 guesses kept · 5,610 layer-steps · 0.4 MB of keys and values`."""
    parts: list[str] = []
    counts = cast("Mapping[str, int]", graph.get("layers_run", {}))
    total = sum(counts.values())
    if total:
        mean = sum(int(layers) * count for layers, count in counts.items()) / total
        parts.append(f"a token needed {mean:.1f} of {graph['num_layers']} layers")
    if graph.get("drafts_proposed"):
        parts.append(f"{graph['drafts_accepted']} of {graph['drafts_proposed']} guesses kept")
    if "layer_steps" in graph:
        parts.append(f"{graph['layer_steps']:,} layer-steps")
    if "kv_bytes" in graph:
        parts.append(f"{graph['kv_bytes'] / 1e6:.1f} MB of keys and values")
    return " · ".join(parts)


def _names(value: Any) -> list[str]:
    # Encoders are named after their Triton models, or shortly ("vision").
    names = cast("list[Any]", value) if isinstance(value, list) else []
    return [name if str(name).endswith("_encoder") else f"{name}_encoder" for name in names]

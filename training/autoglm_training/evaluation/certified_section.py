"""What a page says of certified exits and of the router."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

from autoglm_training.evaluation.shares import Share

AIM_DELTA, AIM_EPSILON, AIM_DEPTH = 0.02, 0.05, 0.6
"""At most so many actions changed, with this error; at most this share of the layers."""

Values = Mapping[str, Any]


def certified_aims(certified: Values | None) -> list[str]:
    """Rows of the table of aims. What must be small is rounded up."""
    aim = f"at most {100 * AIM_DELTA:.0f} %, with {100 * AIM_EPSILON:.0f} % error"
    if certified is None:
        return [f"| certified exits: changed actions | {aim} | not measured | | 0 |"]
    changed = Share(certified["mismatches"], certified["n"])
    promised = f"the certificate says {_percent(certified['delta'])}, {_percent(certified['epsilon'])} error"
    layers = f"at most {AIM_DEPTH * certified['num_layers']:.1f}"
    n = certified["n"]
    return [
        f"| certified exits: changed actions ({promised}) | {aim} | {_risk(changed)} | {changed.between} | {n} |",
        f"| certified exits: layer at which a token is chosen | {layers} | {_up(certified['mean_layers'])} | | {n} |",
        f"| certified exits: layers run a token, later ones too | | {_up(_run(certified, ''))} | | {n} |",
    ]


def certified_section(certified: Values | None) -> str:
    """Each number with what it means, in a sentence."""
    if certified is None:
        return ""
    steps, full = certified["layer_steps"], certified["layer_steps_full"]
    lines = [
        f"## Certified exits\n\nThe engine's own figures for {certified['n']} requests of mixed traffic (text, "
        "screens, speech quiet and noisy) of the test split, at full depth and with certified exits, in float32:",
        f"- **Changed actions**, {certified['mismatches']} of {certified['n']}: the parsed action differs from full "
        "depth's answer to the same request.",
        f"- **Layer at which a token is chosen**, {_up(certified['mean_layers'])} of {certified['num_layers']} on "
        "average: after so many layers the next token is known. It is not the work done: keys and values of the "
        "skipped layers are computed later, exactly, for several tokens in one pass, so what is saved is passes over "
        "the deep weights.",
        f"- **Layers run a token**, {_up(_run(certified, ''))} on average (full depth: {_up(_run(certified, '_full'))}"
        "): all layers that the answers' tokens really went through, those run later included; only what the last "
        "tokens of an answer skipped is never run.",
        f"- **Layer steps**, prompts included: {steps:,} instead of {full:,}, {100 * (1 - steps / full):.1f} % fewer. "
        "A prompt always runs at full depth.",
    ]
    if router := certified.get("router"):
        routed = Share(router["routed"], router["n"])
        lines.append(
            f"- **Router** (`depth: auto`, where no rule speaks first): it sent {router['routed']} of "
            f"{router['n']} whole requests ({routed}) to depth {router['depth']} and left the others at full depth; "
            f"{router['mismatches']} of all "
            f"{router['n']} actions changed: {_risk(Share(router['mismatches'], router['n']))} (calibrated for at most "
            f"{_percent(router['delta'])}, where {router['calibrated_mismatches']} of {router['calibrated_n']} changed "
            f"and {100 * router['calibrated_share']:.1f} % were sent)."
        )
    return "\n".join([lines[0], "", *lines[1:]])


def _run(certified: Values, which: str) -> float:
    """Layers run for each token of an answer but the last, which is never put in."""
    return certified[f"answer_layer_steps{which}"] / max(1, certified["tokens"] - certified["n"])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _risk(share: Share) -> str:
    return f"{-(-1000 * share.count // share.total) / 10:.1f} % ({share.count} of {share.total})"


def _up(layers: float) -> str:
    return f"{ceil(round(10 * layers, 6)) / 10:.1f}"

"""An answer on the terminal with each token coloured by the decoder layers it needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TextIO, cast

from autoglm_client.events import ClientEvent, Started, TextDelta
from autoglm_client.plan_line import depth_line
from autoglm_client.reply import ActionReply
from autoglm_client.terminal import can_colour

_RESET = "\x1b[0m"
_SHADES = ((157, 120), (229, 222), (223, 216), (217, 210))
"""Backgrounds of the 256-colour palette for each quarter of the decoder, green to red. Two shades take turns, so that
neighbouring tokens are told apart; black text on them reads on light and dark terminals."""


class DepthPrinter:
    """As AnswerPrinter: `show` every event, then `end`. Text is printed as the model writes it, tags included.

    Without colours, a mark such as `⟨6⟩` stands where the depth changes.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._has_colour = can_colour(out)
        self._num_layers = 1
        self._last_layers: int | None = None
        self._num_shown = 0
        self._is_line_open = False

    def show(self, event: ClientEvent) -> None:
        if isinstance(event, Started):
            self._num_layers = int(event.dynamic_graph.get("num_layers", 1))
        elif isinstance(event, TextDelta):
            for token in event.token_layers:
                self._show_token(token.text, token.layers)
            # What was held back as the beginning of a stop string comes without its tokens.
            self._write(event.text[sum(len(token.text) for token in event.token_layers) :])
            self._out.flush()

    def end(self) -> None:
        if self._is_line_open:
            self._out.write("\n")
        self._out.flush()

    def summary(self, reply: ActionReply) -> None:
        """The colours with their layers and token counts, and under it what the depth spared."""
        graph = reply.dynamic_graph
        if graph is None or not reply.token_layers:
            self._out.write("(this server does not say how many layers a token needed)\n")
            return
        counts = cast("Mapping[str, int]", graph.get("layers_run", {}))
        legend = [self._legend(layers, counts[str(layers)]) for layers in sorted(map(int, counts))]
        self._out.write(f"{'   '.join(legend)}\n{depth_line(graph)}\n")
        self._out.flush()

    def _legend(self, layers: int, count: int) -> str:
        sign = self._painted("  ", layers, 0) if self._has_colour else f"⟨{layers}⟩"
        return f"{sign} {layers} layers: {count} {'token' if count == 1 else 'tokens'}"

    def _show_token(self, text: str, layers: int) -> None:
        if not text:
            return
        if self._has_colour:
            self._num_shown += 1
            # A background would run on to the end of the terminal's line.
            self._write("\n".join(self._painted(line, layers, self._num_shown % 2) for line in text.split("\n")))
        elif layers == self._last_layers:
            self._write(text)
        else:
            self._write(f"⟨{layers}⟩{text}")
        self._last_layers = layers

    def _painted(self, text: str, layers: int, turn: int) -> str:
        quarter = min((4 * layers - 1) // max(self._num_layers, layers), 3)
        return f"\x1b[30;48;5;{_SHADES[quarter][turn]}m{text}{_RESET}" if text else ""

    def _write(self, text: str) -> None:
        if text:
            self._out.write(text)
            self._is_line_open = not text.endswith("\n")

"""The JSON of OpenAI chat completion chunks to client events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from autoglm_client.errors import StreamBrokenError, as_object, error_from_event
from autoglm_client.events import ClientEvent, Finished, ReasoningDelta, Started, TextDelta
from autoglm_protocol.events import FinishReason, TokenLayers, Usage

DONE = "[DONE]"


@dataclass(slots=True)
class ChunkReader:
    """Reads the `data` of one stream's events in order; what belongs to the end is kept until DONE."""

    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    dynamic_graph: dict[str, Any] | None = None

    def read(self, data: str) -> Iterator[ClientEvent]:
        """Raises the server's error, or StreamBrokenError for what is no chunk."""
        if data == DONE:
            yield self._finished()
            return
        chunk = _parse(data)
        if chunk.get("error"):
            raise error_from_event(as_object(chunk["error"]))
        if isinstance(chunk.get("dynamic_graph"), dict):
            is_first = self.dynamic_graph is None
            self.dynamic_graph = as_object(chunk["dynamic_graph"])
            if is_first and not any(as_object(c).get("finish_reason") for c in _choices(chunk)):
                yield Started(dynamic_graph=self.dynamic_graph)
        if isinstance(chunk.get("usage"), dict):
            self.usage = read_usage(as_object(chunk["usage"]))
        for choice in _choices(chunk):
            yield from self._choice(as_object(choice))

    def _choice(self, choice: dict[str, Any]) -> Iterator[ClientEvent]:
        delta = as_object(choice.get("delta"))
        if delta.get("reasoning_content"):
            yield ReasoningDelta(text=str(delta["reasoning_content"]))
        tokens = _token_layers(choice.get("token_layers"))
        if delta.get("content") or tokens:
            yield TextDelta(text=str(delta.get("content") or ""), token_layers=tokens)
        reason = choice.get("finish_reason")
        if reason is not None:
            try:
                self.finish_reason = FinishReason(reason)
            except ValueError as error:
                raise StreamBrokenError(f"the server sent the unknown finish reason {reason!r}") from error

    def _finished(self) -> Finished:
        if self.finish_reason is None:
            raise StreamBrokenError("the stream ended without a finish reason")
        return Finished(finish_reason=self.finish_reason, usage=self.usage or Usage(), dynamic_graph=self.dynamic_graph)


def read_usage(raw: dict[str, Any]) -> Usage:
    prompt = as_object(raw.get("prompt_tokens_details"))
    completion = as_object(raw.get("completion_tokens_details"))
    return Usage(
        prompt_tokens=raw.get("prompt_tokens") or 0,
        completion_tokens=raw.get("completion_tokens") or 0,
        image_tokens=prompt.get("image_tokens") or 0,
        audio_tokens=prompt.get("audio_tokens") or 0,
        cached_tokens=prompt.get("cached_tokens") or 0,
        reasoning_tokens=completion.get("reasoning_tokens") or 0,
    )


def _choices(chunk: dict[str, Any]) -> list[Any]:
    choices = chunk.get("choices")
    return cast("list[Any]", choices) if isinstance(choices, list) else []


def _token_layers(raw: Any) -> tuple[TokenLayers, ...]:
    listed = cast("list[Any]", raw) if isinstance(raw, list) else []
    tokens = map(as_object, listed)
    return tuple(TokenLayers(text=str(token["text"]), layers=int(token["layers"])) for token in tokens)


def _parse(data: str) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except ValueError as error:
        raise StreamBrokenError(f"the server sent what is no JSON: {data[:80]!r}") from error
    if not isinstance(chunk, dict):
        raise StreamBrokenError(f"the server sent what is no chunk: {data[:80]!r}")
    return as_object(chunk)

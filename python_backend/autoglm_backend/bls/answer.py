"""The answers of one request while they stream: the decoder's tokens become text, stop strings end choices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from autoglm_backend.bls.detokenize import Detokenizer
from autoglm_backend.preprocess.tokenizer import TokenTable
from autoglm_protocol.events import ChoiceFinished, FinishReason, TokenDelta, TokenLogprob
from autoglm_protocol.sampling import SamplingParams


class Answer:
    """All choices of one request."""

    def __init__(
        self,
        table: TokenTable,
        sampling: SamplingParams,
        *,
        think_ids: tuple[int, int] | None,
        starts_in_thought: bool,
        with_layers: bool = False,
    ) -> None:
        # with_layers: pass on what the decoder says of the depth of each token.
        self.reasons: dict[int, FinishReason] = {}
        """Why each choice that is complete ended."""
        self._table = table
        self._with_layers = with_layers
        self._choices = [
            Detokenizer(
                table,
                stop=sampling.stop,
                include_stop=sampling.include_stop_str_in_output,
                min_tokens=sampling.min_tokens,
                think_ids=think_ids,
                starts_in_thought=starts_in_thought,
            )
            for _ in range(sampling.n)
        ]

    @property
    def is_complete(self) -> bool:
        return len(self.reasons) == len(self._choices)

    @property
    def completion_tokens(self) -> int:
        return sum(choice.num_tokens for choice in self._choices)

    @property
    def reasoning_tokens(self) -> int:
        return sum(choice.reasoning_tokens for choice in self._choices)

    def take(self, delta: TokenDelta) -> Iterator[TokenDelta | ChoiceFinished]:
        """The decoder's tokens as text. Tokens of a choice that a stop string has ended are dropped."""
        if delta.index in self.reasons:
            return
        piece = self._choices[delta.index].feed(delta.token_ids)
        logprobs = delta.logprobs and tuple(map(self._with_text, delta.logprobs[: piece.num_tokens]))
        layers = delta.layers[: piece.num_tokens] if self._with_layers and delta.layers is not None else None
        yield replace(
            delta,
            text=piece.text,
            token_ids=delta.token_ids[: piece.num_tokens],
            logprobs=logprobs,
            layers=layers,
            chars=None if layers is None else piece.chars,
        )
        if piece.stopped:
            yield from self.finish(delta.index, FinishReason.STOP)

    def finish(self, index: int, reason: FinishReason) -> Iterator[TokenDelta | ChoiceFinished]:
        """Complete a choice: the text still held back, and word of it where there are several choices."""
        if index in self.reasons:
            return
        self.reasons[index] = reason
        held = self._choices[index].finish()
        if held:
            yield TokenDelta(text=held, token_ids=(), index=index)
        if len(self._choices) > 1:
            yield ChoiceFinished(index=index, finish_reason=reason)

    def finish_all(self, reason: FinishReason) -> Iterator[TokenDelta | ChoiceFinished]:
        for index in range(len(self._choices)):
            yield from self.finish(index, reason)

    def _with_text(self, entry: TokenLogprob) -> TokenLogprob:
        """The decoder knows ids only."""
        raw = self._table.raw_bytes(entry.token_id)
        top: list[tuple[int, str, bytes, float]] = []
        for token_id, _, _, logprob in entry.top:
            other = self._table.raw_bytes(token_id)
            top.append((token_id, other.decode(errors="replace"), other, logprob))
        return replace(entry, token=raw.decode(errors="replace"), raw=raw, top=tuple(top))

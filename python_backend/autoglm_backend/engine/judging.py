"""From logits to the tokens of a row: sampling, checking drafts, the reasoning budget. It changes the sequence only."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace

import torch

from autoglm_backend.engine.exits import Judgement
from autoglm_backend.engine.sampler import Sampled, is_plain, sample, sample_one
from autoglm_backend.engine.sequence import Sequence
from autoglm_protocol.events import FinishReason, TokenDelta, TokenLogprob


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one judgement gave: at least one token, all of them appended to the sequence."""

    sequence: Sequence
    tokens: tuple[Sampled, ...]
    layers: tuple[int, ...]
    """Layers that each token needed."""
    reason: FinishReason | None
    """Why the sequence ends with the last token; None when it goes on."""
    num_drafted: int
    num_accepted: int

    def delta(self) -> TokenDelta:
        logprobs = None
        if self.sequence.sampling.logprobs:
            logprobs = tuple(_logprob(sampled) for sampled in self.tokens)
        token_ids = tuple(sampled.token for sampled in self.tokens)
        return TokenDelta(
            text="", token_ids=token_ids, index=self.sequence.index, logprobs=logprobs, layers=self.layers
        )


def choose_drafts(sequences: Seq[Sequence], logits_NV: torch.Tensor) -> list[int]:
    """Draft tokens: what the exit would choose under the request's own penalties, filters and draws."""
    return [sampled.token for sampled in sample(sequences, logits_NV)]


def judge(judgement: Judgement, draft_depth: int, think_ids: tuple[int, int] | None) -> Verdict:
    """Tokens that the judging depth chooses after each other, for as long as the drafts foresaw them; appended.

    The token after the first wrong draft is right all the same: its logits saw only true tokens. draft_depth: the exit
    that drafted. think_ids: the ids of <think> and </think>.
    """
    sequence = judgement.sequence
    drafts = sequence.take_drafts()
    likeliest = _likeliest(judgement) if is_plain(sequence) else None
    tokens: list[Sampled] = []
    layers: list[int] = []
    reason = None
    for i in range(len(judgement.logits_NV)):
        if likeliest is not None:
            sampled = Sampled(token=likeliest[i])
        else:
            sampled = sample_one(sequence, judgement.logits_NV[i])
        token = _within_reasoning_budget(sequence, sampled.token, think_ids)
        tokens.append(sampled if token == sampled.token else replace(sampled, token=token))
        foreseen = i < len(drafts) and token == drafts[i]
        layers.append(min(draft_depth, judgement.depth) if foreseen else judgement.depth)
        reason = sequence.append(token, layers[-1])
        if reason is not None or not foreseen:
            break
    if drafts:
        sequence.truncate_kv()
    # A shallow row that rode along guessed nothing: its own depth chose every token.
    num_drafted = len(drafts) if judgement.depth > draft_depth else 0
    num_accepted = sum(depth == draft_depth for depth in layers) if num_drafted else 0
    sequence.num_drafted += num_drafted
    sequence.num_accepted += num_accepted
    return Verdict(
        sequence=sequence,
        tokens=tuple(tokens),
        layers=tuple(layers),
        reason=reason,
        num_drafted=num_drafted,
        num_accepted=num_accepted,
    )


def _likeliest(judgement: Judgement) -> Seq[int]:
    if judgement.likeliest_N is not None:
        return judgement.likeliest_N
    return judgement.logits_NV.argmax(dim=-1).tolist()


def _within_reasoning_budget(sequence: Sequence, token: int, think_ids: tuple[int, int] | None) -> int:
    """The sampled token, or </think> once the thought has used up its budget."""
    if think_ids is None:
        return token
    opening, closing = think_ids
    if sequence.reasoning_open:
        over = sequence.reasoning_budget is not None and sequence.reasoning_tokens >= sequence.reasoning_budget
        token = closing if over else token
        sequence.reasoning_open = token != closing
        sequence.reasoning_tokens += token != closing
    elif token == opening:
        sequence.reasoning_open = True
    return token


def _logprob(sampled: Sampled) -> TokenLogprob:
    """Ids and numbers only: text is the detokenizer's business."""
    assert sampled.logprob is not None
    top = tuple((token_id, "", b"", logprob) for token_id, logprob in sampled.top)
    return TokenLogprob(token_id=sampled.token, token="", raw=b"", logprob=sampled.logprob, top=top)

"""Logits to token ids: penalties, biases, filters, then argmax or a seeded draw.

Greedy rows without any processor take one argmax for the whole batch. A sampled row draws one uniform number from
(seed, position) and walks the cumulative distribution, so a request draws the same numbers alone, in a batch, after a
preemption and when its tokens were guessed first: a draft is kept exactly when plain decoding would have drawn it.

Shape legend: N rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from collections.abc import Set
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autoglm_backend.engine.sequence import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    """(token id, log-probability), most likely first; of the raw distribution, as OpenAI reports it."""


def sample(sequences: Seq[Sequence], logits_NV: Tensor) -> list[Sampled]:
    """One token per row. `logits_NV` is float32 and is changed in place."""
    plain = [is_plain(sequence) for sequence in sequences]
    argmax = logits_NV.argmax(dim=-1).tolist() if any(plain) else []
    return [
        Sampled(token=argmax[i]) if plain[i] else sample_one(sequence, logits_NV[i])
        for i, sequence in enumerate(sequences)
    ]


def is_plain(sequence: Sequence) -> bool:
    """True when nothing stands between the row's logits and its argmax."""
    return sequence.grammar is None and _is_plain_but_for_grammar(sequence)


def _is_plain_but_for_grammar(sequence: Sequence) -> bool:
    p = sequence.sampling
    return p.temperature == 0 and not (
        p.logprobs
        or sequence.bad_words
        or p.frequency_penalty
        or p.presence_penalty
        or p.repetition_penalty != 1.0
        or p.logit_bias
        or p.allowed_token_ids is not None
        or p.min_tokens
    )


def sample_one(sequence: Sequence, logits_V: Tensor) -> Sampled:
    """The next token after the sequence's history (drafts included), from logits that are changed in place."""
    params, grammar = sequence.sampling, sequence.grammar
    if grammar is not None and _is_plain_but_for_grammar(sequence):
        # What the grammar lets through mostly is what the model wants: the whole mask is seldom needed.
        wanted = int(logits_V.argmax())
        if grammar.allows(wanted):
            return Sampled(token=wanted)
    raw = torch.log_softmax(logits_V, dim=-1) if params.logprobs else None
    process(sequence, logits_V)
    if params.temperature > 0:
        token = pick(distribution(sequence, logits_V), draw_uniform(sequence.seed, sequence.num_history))
    else:
        token = int(logits_V.argmax())
    if raw is None:
        return Sampled(token=token)
    values, ids = raw.topk(params.top_logprobs)
    top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return Sampled(token=token, logprob=float(raw[token]), top=top)


def process(sequence: Sequence, logits_V: Tensor) -> None:
    """History-dependent changes to one row's logits, in place: they hold for greedy and sampled rows alike."""
    params = sequence.sampling
    if params.repetition_penalty != 1.0:
        seen = torch.tensor(sorted({*sequence.counts, *sequence.prompt.ids}), device=logits_V.device)
        values = logits_V[seen]
        scaled = torch.where(values > 0, values / params.repetition_penalty, values * params.repetition_penalty)
        logits_V[seen] = scaled
    if (params.frequency_penalty or params.presence_penalty) and sequence.counts:
        ids = torch.tensor(list(sequence.counts), device=logits_V.device)
        counts = torch.tensor(list(sequence.counts.values()), device=logits_V.device, dtype=logits_V.dtype)
        logits_V[ids] -= params.frequency_penalty * counts + params.presence_penalty
    if params.logit_bias:
        ids = torch.tensor(list(params.logit_bias), device=logits_V.device)
        logits_V[ids] += torch.tensor(list(params.logit_bias.values()), device=logits_V.device, dtype=logits_V.dtype)
    _restrict(sequence, logits_V)


def _restrict(sequence: Sequence, logits_V: Tensor) -> None:
    """Bar what must not come next, in place. A rule that would leave nothing gives way to those before it."""
    params = sequence.sampling
    if sequence.grammar is not None:
        _keep_only(logits_V, torch.from_numpy(sequence.grammar.mask()))
    if params.allowed_token_ids is not None:
        allowed_V = torch.zeros(logits_V.shape[0], dtype=torch.bool)
        allowed_V[list(params.allowed_token_ids)] = True
        _keep_only(logits_V, allowed_V)
    if sequence.bad_words:
        said = sequence.tokens(sequence.num_prompt, sequence.num_history)
        _bar(logits_V, {word[-1] for word in sequence.bad_words if said[len(said) - len(word) + 1 :] == [*word[:-1]]})
    if sequence.num_history - sequence.num_prompt < params.min_tokens:
        _bar(logits_V, sequence.stop_ids)


def _bar(logits_V: Tensor, ids: Set[int]) -> None:
    if ids:
        allowed_V = torch.ones(logits_V.shape[0], dtype=torch.bool)
        allowed_V[list(ids)] = False
        _keep_only(logits_V, allowed_V)


def _keep_only(logits_V: Tensor, allowed_V: Tensor) -> None:
    kept_V = logits_V.masked_fill(~allowed_V.to(logits_V.device), float("-inf"))
    if kept_V.max() > float("-inf"):
        logits_V.copy_(kept_V)


def distribution(sequence: Sequence, logits_V: Tensor) -> Tensor:
    """Probabilities [V] after temperature, top_k, top_p and min_p: what a sampled row draws from."""
    params = sequence.sampling
    scaled = logits_V / params.temperature
    if params.top_k > 0 and params.top_k < scaled.shape[0]:
        threshold = scaled.topk(params.top_k).values[-1]
        scaled = scaled.masked_fill(scaled < threshold, float("-inf"))
    probabilities = torch.softmax(scaled, dim=-1)
    if params.top_p < 1.0:
        ordered, order = probabilities.sort(descending=True, stable=True)
        # Keep the smallest set that reaches top_p: a token stays while the mass before it is below the bound.
        outside = ordered.cumsum(-1) - ordered >= params.top_p
        probabilities = probabilities.index_fill(0, order[outside], 0.0)
    if params.min_p > 0.0:
        probabilities = probabilities.masked_fill(probabilities < params.min_p * probabilities.max(), 0.0)
    return probabilities / probabilities.sum()


def draw_uniform(seed: int, position: int) -> float:
    """One number in [0, 1) that depends on nothing but the request's seed and the token's place."""
    return float(np.random.Generator(np.random.Philox(key=seed & (2**64 - 1), counter=position)).random())


def pick(probabilities_V: Tensor, uniform: float) -> int:
    """Inverse of the cumulative distribution in vocabulary order."""
    cumulative = probabilities_V.double().cumsum(-1)
    at = int(torch.searchsorted(cumulative, uniform * float(cumulative[-1]), right=True))
    # Rounding may leave the walk on a token of probability 0 at the very end: step back to the last possible one.
    return min(at, int(probabilities_V.nonzero()[-1]))

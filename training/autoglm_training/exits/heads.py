"""Exit heads for a frozen backbone: each learns to say what full depth says, on the model's own answers.

One pass of the backbone gives the residual streams at all exits; the heads (a norm and a small adapter, the output head
is the backbone's) then learn from those streams alone, so the cost of a step does not depend on the backbone's depth.

Shape legend: N tokens, E exits, D hidden, V vocabulary.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from autoglm_backend.models.decoder import TextDecoder
from autoglm_backend.models.exits import ExitHead, ExitHeads
from autoglm_training.exits.decoding import Prompt, Trace, decode
from autoglm_training.loading import LoadedCheckpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitTraining:
    """held_out: share of the prompts that only measure. certain_weight: of the plain cross entropy beside the KL."""

    depths: tuple[int, ...]
    adapter_size: int = 64
    epochs: int = 10
    batch_tokens: int = 512
    peak_lr: float = 2e-3
    held_out: float = 0.1
    max_tokens: int = 64
    prompts_at_once: int = 512
    """Their streams are kept together, so this bounds the memory."""
    certain_weight: float = 0.1
    seed: int = 20261121


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """States of answer tokens: at the exits [N, E, D], and at full depth after the norm [N, D]."""

    exits_NED: Tensor
    final_ND: Tensor

    def __len__(self) -> int:
        return len(self.final_ND)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitResult:
    """Trained heads; agreement with full depth on held-out answers by depth, before and after."""

    heads: ExitHeads
    before: dict[int, float]
    after: dict[int, float]
    answers: list[Trace]


def default_depths(num_layers: int) -> tuple[int, ...]:
    """Quarters of the depth."""
    return tuple(sorted({max(1, num_layers * quarter // 4) for quarter in (1, 2, 3)} - {num_layers}))


def train_exits(
    loaded: LoadedCheckpoint, prompts: Sequence[Prompt], config: ExitTraining, say: Callable[[str], None] = print
) -> ExitResult:
    """Train heads at `config.depths`; those that the checkpoint has at the same depths are where they start.

    Raises:
        ValueError: too few prompts to hold any out.
    """
    count = max(1, round(config.held_out * len(prompts)))
    if len(prompts) < 2:
        raise ValueError(f"{len(prompts)} prompts are too few: some must be held out")
    order = list(prompts)
    random.Random(config.seed).shuffle(order)
    held, used = order[:count], order[count:]
    torch.manual_seed(config.seed)
    heads = _start(loaded, config)
    held_streams, answers = _answers(loaded, held, config)
    before = agreement(loaded.decoder, heads, held_streams)
    optimizer = torch.optim.AdamW(heads.parameters(), lr=config.peak_lr, betas=(0.9, 0.98))
    chunks = [used[i : i + config.prompts_at_once] for i in range(0, len(used), config.prompts_at_once)]
    for number, chunk in enumerate(chunks, start=1):
        streams, traces = _answers(loaded, chunk, config)
        answers += traces
        rate = config.peak_lr * (1 - (number - 1) / len(chunks))
        loss = _learn(loaded.decoder, heads, streams, optimizer, config, rate)
        say(f"exits {number}/{len(chunks)} prompts {len(chunk)} tokens {len(streams)} loss {loss:.4f}")
    after = agreement(loaded.decoder, heads, held_streams)
    return ExitResult(heads=heads.eval().requires_grad_(False), before=before, after=after, answers=answers)


def _start(loaded: LoadedCheckpoint, config: ExitTraining) -> ExitHeads:
    text = loaded.config.text
    heads = ExitHeads(text, config.depths, config.adapter_size).to(loaded.decoder.norm.weight.device)
    known = loaded.exits
    for depth in heads.depths:
        head = heads.heads[str(depth)]
        assert isinstance(head, ExitHead)
        with torch.no_grad():
            head.norm.weight.copy_(loaded.decoder.norm.weight)
        if known is not None and depth in known.depths:
            state = known.heads[str(depth)].state_dict()
            if state["adapter_in.weight"].shape == head.adapter_in.weight.shape:
                head.load_state_dict(state)
    return heads


def _answers(loaded: LoadedCheckpoint, prompts: Sequence[Prompt], config: ExitTraining) -> tuple[Streams, list[Trace]]:
    """The model's own answers and the streams of every token of them."""
    num_layers = loaded.config.text.num_layers
    depths = tuple(sorted(config.depths))
    traces = decode(loaded.decoder, prompts, loaded.eos_ids, watch=(*depths, num_layers), max_tokens=config.max_tokens)
    like = loaded.decoder.norm.weight
    stacked = torch.cat([torch.from_numpy(trace.streams_TED) for trace in traces]).to(like.device)
    with torch.no_grad():
        final_ND = loaded.decoder.norm(stacked[:, -1].to(like.dtype))
    for trace in traces:
        trace.streams.clear()
    return Streams(exits_NED=stacked[:, :-1], final_ND=final_ND), traces


def _learn(
    decoder: TextDecoder,
    heads: ExitHeads,
    streams: Streams,
    optimizer: torch.optim.Optimizer,
    config: ExitTraining,
    peak_lr: float,
) -> float:
    """Some epochs over one set of streams, the rate falling to a tenth. Returns the last epoch's mean loss."""
    batches = max(1, len(streams) // config.batch_tokens)
    steps, step, mean = batches * config.epochs, 0, 0.0
    for _ in range(config.epochs):
        losses: list[float] = []
        for picked in torch.randperm(len(streams)).chunk(batches):
            for group in optimizer.param_groups:
                group["lr"] = peak_lr * (1 - 0.9 * step / steps)
            loss = exit_loss(decoder, heads, streams, picked.to(streams.final_ND.device), config.certain_weight)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(heads.parameters(), 1.0)
            optimizer.step()
            losses.append(float(loss.detach()))
            step += 1
        mean = sum(losses) / len(losses)
    return mean


def exit_loss(
    decoder: TextDecoder, heads: ExitHeads, streams: Streams, picked: Tensor, certain_weight: float
) -> Tensor:
    """KL(full depth || exit) plus a little cross entropy on full depth's choice, mean over tokens and exits."""
    with torch.no_grad():
        full_NV = F.log_softmax(decoder.lm_head(streams.final_ND[picked]).float(), dim=-1)
        chosen_N = full_NV.argmax(-1)
    total = torch.zeros((), device=full_NV.device)
    for index, depth in enumerate(heads.depths):
        exit_NV = _log_probs(decoder, heads, depth, streams.exits_NED[picked, index])
        total = total + F.kl_div(exit_NV, full_NV, log_target=True, reduction="batchmean")
        total = total + certain_weight * F.nll_loss(exit_NV, chosen_N)
    return total / len(heads.depths)


@torch.no_grad()
def agreement(decoder: TextDecoder, heads: ExitHeads, streams: Streams, batch: int = 4096) -> dict[int, float]:
    """Share of tokens for which each exit chooses what full depth chooses."""
    hits = dict.fromkeys(heads.depths, 0)
    for picked in torch.arange(len(streams), device=streams.final_ND.device).split(batch):
        chosen_N = decoder.lm_head(streams.final_ND[picked]).argmax(-1)
        for index, depth in enumerate(heads.depths):
            exit_NV = _log_probs(decoder, heads, depth, streams.exits_NED[picked, index])
            hits[depth] += int((exit_NV.argmax(-1) == chosen_N).sum())
    return {depth: hit / len(streams) for depth, hit in hits.items()}


def _log_probs(decoder: TextDecoder, heads: ExitHeads, depth: int, stream_ND: Tensor) -> Tensor:
    normed_ND = heads(depth, stream_ND.to(next(heads.parameters()).dtype))
    return F.log_softmax(decoder.lm_head(normed_ND.to(decoder.lm_head.weight.dtype)).float(), dim=-1)


def draft_vocabulary(traces: Sequence[Trace], eos_ids: frozenset[int], coverage: float) -> list[int]:
    """The fewest tokens that make up `coverage` of the model's own answers, and the stop tokens."""
    counts = Counter(token for trace in traces for token in trace.ids)
    wanted, seen = coverage * sum(counts.values()), 0
    kept = set(eos_ids)
    for token, count in counts.most_common():
        if seen >= wanted:
            break
        kept.add(token)
        seen += count
    return sorted(kept)

"""Turn the projector's tokens into the decoder's own word vectors, before both are trained together.

The second stage left a head that reads text pieces from the speech tokens. Its posterior says which of the decoder's
embeddings each speech token stands for; the projector is fitted to their mean (a linear solution first, then a few
hundred cheap steps). The decoder then reads speech as typed text with empty slots between the pieces.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from autoglm_backend.models.speech import SpeechEncoder
from autoglm_training.speech.alphabet import BLANK
from autoglm_training.speech.features import Frames
from autoglm_training.speech.heads import NamedHead

RIDGE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceReader:
    """The second stage's projector and head: posteriors over text pieces from encoder frames.

    ids_C: the tokenizer's id of each class, the blank's being the id that stands for an empty slot.
    """

    projector: SpeechEncoder
    head: NamedHead
    ids_C: Tensor

    @torch.no_grad()
    def posterior(self, frames_BSD: Tensor) -> Tensor:
        """[B, A, C]."""
        return self.head(self.projector.project(frames_BSD)).softmax(-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How well speech tokens match: share of the targets' variance explained, and right nearest embeddings."""

    explained: float
    nearest_piece: float
    """Among tokens whose posterior is sure (0.6) of a piece."""
    nearest_blank: float


def load_piece_reader(run: Path, encoder: SpeechEncoder, tokenizer: Tokenizer, blank_id: int) -> PieceReader:
    """From the second stage's `tokens.pt`. Raises FileNotFoundError, and ValueError for another tokenizer."""
    saved = torch.load(run / "tokens.pt", weights_only=True)
    teacher = SpeechEncoder(encoder.config)
    teacher.load_state_dict(saved["encoder"])
    names = saved["piece_head"]["names"][1:]
    head = NamedHead(encoder.config.out_hidden_size, names)
    head.carry_over(saved["piece_head"])
    ids = [tokenizer.token_to_id(name) for name in names]
    if None in ids:
        raise ValueError(f"{run / 'tokens.pt'} was trained with another tokenizer: it lacks {names[ids.index(None)]!r}")
    return PieceReader(projector=teacher.eval(), head=head.eval(), ids_C=torch.tensor([blank_id, *ids]))


def align_projector(
    encoder: SpeechEncoder,
    reader: PieceReader,
    embeddings_VD: Tensor,
    clips: Sequence[Frames],
    *,
    steps: int = 400,
    peak_lr: float = 2e-3,
) -> None:
    """Fit `encoder`'s projector, in place, to the embeddings that `reader` hears in `clips` (frames [S, D] each)."""
    targets_CD = embeddings_VD[reader.ids_C].detach().float()
    _solve_output(encoder, reader, targets_CD, clips)
    parameters = [*encoder.projector_in.parameters(), *encoder.projector_out.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=peak_lr, weight_decay=0.0)
    scale = targets_CD.var()
    batches = _endless(clips, np.random.default_rng(0))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = peak_lr * (1 - step / steps)
        frames_BSD, real_BA = next(batches)
        posterior_BAC = reader.posterior(frames_BSD)
        error = F.mse_loss(encoder.project(frames_BSD), posterior_BAC @ targets_CD, reduction="none").mean(-1)
        # Most slots are empty; those that say something count as much together.
        weight = real_BA * (0.1 + 1 - posterior_BAC[..., BLANK])
        loss = (error * weight).sum() / weight.sum() / scale
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()


@torch.no_grad()
def measure_fit(encoder: SpeechEncoder, reader: PieceReader, embeddings_VD: Tensor, clips: Sequence[Frames]) -> Fit:
    """On clips that `align_projector` did not see."""
    targets_CD = embeddings_VD[reader.ids_C].float()
    missed, total = torch.zeros(()), torch.zeros(())
    right: dict[bool, list[float]] = {True: [], False: []}
    for frames in clips:
        frames_BSD = torch.from_numpy(frames)[None]
        posterior_AC = reader.posterior(frames_BSD)[0]
        wanted_AD, got_AD = posterior_AC @ targets_CD, encoder.project(frames_BSD)[0]
        missed += (got_AD - wanted_AD).square().sum()
        total += (wanted_AD - targets_CD[BLANK]).square().sum()
        nearest_A = torch.cdist(got_AD, targets_CD).argmin(-1)
        sure_A, best_A = posterior_AC.max(-1)
        for sure, best, nearest in zip(sure_A.tolist(), best_A.tolist(), nearest_A.tolist(), strict=True):
            if sure > 0.6:
                right[best != BLANK].append(float(best == nearest))
    return Fit(
        explained=float(1 - missed / total),
        nearest_piece=float(np.mean(right[True])),
        nearest_blank=float(np.mean(right[False])),
    )


@torch.no_grad()
def _solve_output(
    encoder: SpeechEncoder, reader: PieceReader, targets_CD: Tensor, clips: Sequence[Frames], max_clips: int = 2_000
) -> None:
    """Ridge regression of `projector_out` on the reader's own hidden units."""
    encoder.projector_in.load_state_dict(copy.deepcopy(reader.projector.projector_in.state_dict()))
    size = encoder.projector_out.in_features + 1
    gram, cross = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, targets_CD.shape[1]).double()
    for frames in clips[:max_clips]:
        frames_BSD = torch.from_numpy(frames)[None]
        hidden_AH = F.gelu(encoder.projector_in(_stacked(frames_BSD, encoder.config.frames_per_token)))[0].double()
        hidden_AH = torch.cat((hidden_AH, torch.ones(len(hidden_AH), 1, dtype=torch.float64)), dim=1)
        gram += hidden_AH.T @ hidden_AH
        cross += hidden_AH.T @ (reader.posterior(frames_BSD)[0] @ targets_CD).double()
    gram += RIDGE * gram.diagonal().mean() * torch.eye(size, dtype=torch.float64)
    solution = torch.linalg.solve(gram, cross).float()
    encoder.projector_out.weight.copy_(solution[:-1].T)
    encoder.projector_out.bias.copy_(solution[-1])


def _stacked(frames_BSD: Tensor, group: int) -> Tensor:
    padded = F.pad(frames_BSD, (0, 0, 0, -frames_BSD.shape[1] % group))
    return padded.reshape(padded.shape[0], -1, group * padded.shape[-1])


def _endless(clips: Sequence[Frames], rng: np.random.Generator, size: int = 32) -> Iterator[tuple[Tensor, Tensor]]:
    """Padded frames [B, S, D] of clips of like length, and which of their tokens are real [B, A] (float)."""
    order = sorted(range(len(clips)), key=lambda index: len(clips[index]))
    while True:
        start = int(rng.integers(0, max(1, len(order) - size + 1)))
        chosen = [clips[index] for index in order[start : start + size]]
        longest = max(len(frames) for frames in chosen)
        frames_BSD = torch.zeros(len(chosen), longest, chosen[0].shape[1])
        real_BA = torch.zeros(len(chosen), -(-longest // 4))
        for row, real, frames in zip(frames_BSD, real_BA, chosen, strict=True):
            row[: len(frames)] = torch.from_numpy(frames)
            real[: -(-len(frames) // 4)] = 1
        yield frames_BSD, real_BA

"""What the first layers learn to see in a picture's tokens: the words there, where the element under each lies, and how
it stands to the others (the second switch, off, below Alarm).

These losses fall on hundreds of tokens a screen, where answers hold two coordinates and one name each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoglm_training.config.recipes import TEXT
from autoglm_training.facts import facts_loss
from autoglm_training.loss import POINT_SIGMA, point_targets
from autoglm_training.world.standing import FACT_CLASSES, NUM_NAMES

CODE_SCALE = 0.3
"""Maps start at logits of about 2 in width: far from sure, far from flat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenWords:
    """Picture tokens that show a label: where_BT bool; tokens_NV: distribution over the tokens that spell it."""

    where_BT: Tensor
    tokens_NV: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenCentres:
    """Picture tokens that lie on an element: where_BT bool; centres_N2: x and y of its centre, 0..999."""

    where_BT: Tensor
    centres_N2: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenStandings:
    """Picture tokens that lie on an element: where_BT bool; facts_NF: classes from 0 on, -1 where it has none;
    names_N3V: distributions over the tokens that spell the labels above, to the left and its own, all 0 for none."""

    where_BT: Tensor
    facts_NF: Tensor
    names_N3V: Tensor


class CentreMaps(nn.Module):
    """Reads x and y off a picture's token, each as the code of its number: what a coordinate's writer has to copy.

    For training alone. The codes are the decoder's own number embeddings, so what is learnt here can be written as is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Linear(TEXT.hidden_size, 2 * TEXT.hidden_size, bias=False)

    def forward(self, hidden_BTD: Tensor, numbers_CD: Tensor, seen: SeenCentres) -> tuple[Tensor, Tensor]:
        """(cross entropy against a Gaussian around the centre, share told to within 20 on both axes)."""
        device = hidden_BTD.device
        stream = F.rms_norm(hidden_BTD[seen.where_BT.to(device)].float(), (TEXT.hidden_size,))
        codes_CD = CODE_SCALE * F.rms_norm(numbers_CD.detach().float(), (TEXT.hidden_size,))
        read_N2D = self.maps(stream).float().unflatten(-1, (2, TEXT.hidden_size))
        log_probs = F.log_softmax((read_N2D @ codes_CD.T).float(), dim=-1).flatten(0, 1)
        wanted = seen.centres_N2.to(device).flatten()
        loss = -(point_targets(wanted, len(numbers_CD), POINT_SIGMA) * log_probs).sum(-1).mean()
        with torch.no_grad():
            off = (log_probs.argmax(-1) - wanted).abs().view(-1, 2).amax(-1)
            return loss, (off <= 20).float().mean()


class StandingMaps(nn.Module):
    """Reads an element's facts and its neighbours' names off a picture's token. For training alone.

    Names are read with the decoder's own head, so that what is learnt here can be written as is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.facts = nn.Linear(TEXT.hidden_size, sum(FACT_CLASSES))
        self.names = nn.Linear(TEXT.hidden_size, NUM_NAMES * TEXT.hidden_size, bias=False)

    def forward(self, hidden_BTD: Tensor, head: nn.Module, seen: SeenStandings) -> tuple[Tensor, Tensor]:
        """(mean cross entropy of the facts plus that of the names, share of the facts told right)."""
        device = hidden_BTD.device
        stream = F.rms_norm(hidden_BTD[seen.where_BT.to(device)].float(), (TEXT.hidden_size,))
        facts_NF = seen.facts_NF.to(device)
        told, right = facts_loss(self.facts(stream), facts_NF)
        names_N3V = seen.names_N3V.to(device)
        named = names_N3V.sum(-1) > 0
        names = self.names(stream).unflatten(-1, (NUM_NAMES, TEXT.hidden_size))[named]
        log_probs = F.log_softmax(head(names).float(), dim=-1)
        spelled = -(names_N3V[named] * log_probs).sum() / named.sum().clamp(min=1)
        return told + spelled, right


def seen_words(ids_BT: np.ndarray, image_token: int, words: Sequence[np.ndarray], table: Tensor) -> SeenWords | None:
    """The picture tokens that show labels; `words` are the rows' word grids, in order."""
    where = torch.from_numpy(ids_BT == image_token)
    shown = torch.from_numpy(np.concatenate([grid.reshape(-1) for grid in words]).astype(np.int64))
    where[where.clone()] = shown > 0
    if not bool(where.any()):
        return None
    return SeenWords(where_BT=where, tokens_NV=table[shown[shown > 0]])


def seen_centres(ids_BT: np.ndarray, image_token: int, centres: Sequence[np.ndarray]) -> SeenCentres | None:
    """The picture tokens on elements; `centres` are the rows' grids of centres in 0..1 (NaN: none), in order."""
    where = torch.from_numpy(ids_BT == image_token)
    shown = torch.from_numpy(np.concatenate([grid.reshape(-1, 2) for grid in centres]))
    known = ~shown.isnan().any(-1)
    where[where.clone()] = known
    if not bool(where.any()):
        return None
    return SeenCentres(where_BT=where, centres_N2=shown[known] * 999)


def seen_standings(
    ids_BT: np.ndarray, image_token: int, facts: Sequence[np.ndarray], names: Sequence[np.ndarray], table: Tensor
) -> SeenStandings | None:
    """The picture tokens on elements that stand somehow; `facts` and `names`: the rows' grids, in order (0: none)."""
    where = torch.from_numpy(ids_BT == image_token)
    told = torch.from_numpy(np.concatenate([grid.reshape(-1, len(FACT_CLASSES)) for grid in facts]))
    labels = torch.from_numpy(np.concatenate([grid.reshape(-1, NUM_NAMES) for grid in names]))
    known = (told > 0).any(-1) | (labels > 0).any(-1)
    where[where.clone()] = known
    if not bool(where.any()):
        return None
    return SeenStandings(where_BT=where, facts_NF=told[known] - 1, names_N3V=table[labels[known]])

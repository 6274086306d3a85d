"""What the first layers learn to see in a picture's tokens: the words there, and where the element under each lies.

Both losses fall on hundreds of tokens a screen, where answers hold two coordinates each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoglm_training.config.recipes import TEXT
from autoglm_training.loss import POINT_SIGMA, point_targets

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

"""Teach attention to point: where a coordinate is about to be written, three heads look at the element it is about,
and where a thought is about to name or describe an element, at that element.

Through the answers alone the decoder learns to find a named element only slowly (17 to 20 % of taps after 1,500 steps,
though the ViT read 85 % of the words); the attention that finds it can be taught directly, for nothing at run time.

Shape legend: B rows, T columns, H heads, G KV heads, d head dimension, N points.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from autoglm_training.samples import Batch

POINT_LAYER = 4
"""The layer before the last one of the first exit, so that every exit can read what was found."""
LEAST_MISSED = 0.05
POINT_HEADS = (0, 1, 3)
"""Heads of both key/value groups, so that two values' worth of what was found reaches the writer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointing:
    """One row per taught token: the column that writes it, what it may look at, the cells of the box it is about."""

    rows_N: Tensor
    columns_N: Tensor
    visible_NT: Tensor
    inside_NT: Tensor

    def to(self, device: torch.device) -> Pointing:
        return Pointing(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def pointing(batch: Batch, image_token: int) -> Pointing | None:
    """What the pointing heads are taught on `batch`; None where nothing is."""
    rows, targets = np.nonzero(~np.isnan(batch.boxes_BT4[..., 0]))
    columns = np.arange(batch.ids_BT.shape[1])
    writers = targets - 1
    visible = (columns[None] <= writers[:, None]) & batch.real_BT[rows]
    if batch.num_branches:
        width = (batch.ids_BT.shape[1] - batch.prefix_length) // batch.num_branches
        starts = batch.prefix_length + (writers - batch.prefix_length) // width * width
        visible &= (columns[None] < batch.prefix_length) | (columns[None] >= starts[:, None])
    shares = _shares(batch, image_token)
    boxes = batch.boxes_BT4[rows, targets] / 1000
    x0, y0, x1, y1 = (shares[..., index][rows] for index in range(4))
    across = np.minimum(x1, boxes[:, None, 2]) - np.maximum(x0, boxes[:, None, 0])
    down = np.minimum(y1, boxes[:, None, 3]) - np.maximum(y0, boxes[:, None, 1])
    overlap = np.where(np.isnan(across), 0.0, np.clip(across, 0, None) * np.clip(down, 0, None))
    # Half of the most that any cell can overlap: a tiny switch lies in several cells, none of them full.
    inside = overlap >= 0.5 * overlap.max(axis=1, keepdims=True)
    usable = overlap.any(axis=1)
    if not usable.any():
        return None
    return Pointing(
        rows_N=torch.from_numpy(rows[usable]),
        columns_N=torch.from_numpy(writers[usable]),
        visible_NT=torch.from_numpy(visible[usable]),
        inside_NT=torch.from_numpy((inside & (overlap > 0))[usable]),
    )


def _shares(batch: Batch, image_token: int) -> np.ndarray:
    """[B, T, 4]: the part of the screen, in 0..1, that every picture token covers; NaN elsewhere."""
    shares = np.full((*batch.ids_BT.shape, 4), np.nan, dtype=np.float32)
    for row, ids in enumerate(batch.ids_BT):
        cells = np.nonzero(ids == image_token)[0]
        if not len(cells):
            continue
        first, lines, places = batch.positions_3BT[:, row, cells]
        line, place = lines - first, places - first
        height, width = line.max() + 1, place.max() + 1
        shares[row, cells] = np.stack((place / width, line / height, (place + 1) / width, (line + 1) / height), axis=-1)
    return shares


def pointing_loss(q_BTHd: Tensor, k_BTGd: Tensor, taught: Pointing) -> tuple[Tensor, Tensor]:
    """(mean of -log of the attention that falls inside the box, mean of that attention) over the pointing heads.

    Each token counts by what it still misses (as in focal loss): most are names read off the instruction and soon
    found, and would drown the few that have to be counted or compared.
    """
    group = q_BTHd.shape[2] // k_BTGd.shape[2]
    taught = taught.to(q_BTHd.device)
    queries_NHd = q_BTHd[taught.rows_N, taught.columns_N].float()
    total, mass = queries_NHd.new_zeros(()), queries_NHd.new_zeros(())
    for head in POINT_HEADS:
        keys_NTd = k_BTGd[:, :, head // group].float()[taught.rows_N]
        scores_NT = torch.einsum("nd,ntd->nt", queries_NHd[:, head] * q_BTHd.shape[-1] ** -0.5, keys_NTd)
        inside_N = scores_NT.masked_fill(~taught.inside_NT, float("-inf")).logsumexp(-1)
        log_mass_N = inside_N - scores_NT.masked_fill(~taught.visible_NT, float("-inf")).logsumexp(-1)
        mass_N = log_mass_N.detach().exp()
        missed_N = (1 - mass_N).clamp(min=LEAST_MISSED)
        total = total - (missed_N * log_mass_N).sum() / missed_N.sum() / len(POINT_HEADS)
        mass = mass + mass_N.mean() / len(POINT_HEADS)
    return total, mass

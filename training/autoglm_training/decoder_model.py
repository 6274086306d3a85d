"""The decoder with its exits as training sees it: growing depth, masked rows, one loss per exit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoglm_backend.models.decoder import DecoderLayer, TextDecoder, init_weights
from autoglm_backend.models.exits import ExitHeads
from autoglm_backend.models.layers import Attend, Rotation
from autoglm_training.attention import branch_products, causal_products, watched
from autoglm_training.config.recipes import EXIT_ADAPTER_SIZE, EXIT_DEPTHS, PLAIN, TEXT, Objective
from autoglm_training.loss import answer_loss, exit_weight
from autoglm_training.pointing import POINT_LAYER, Pointing, pointing_loss
from autoglm_training.progress import Meter
from autoglm_training.quantization_aware import rounded_weights, rounding_error
from autoglm_training.samples import IGNORE, Batch
from autoglm_training.seeing import CentreMaps, SeenCentres, SeenStandings, SeenWords, StandingMaps
from autoglm_training.smooth_codes import smooth_codes
from autoglm_training.teacher import Teacher, distillation_loss
from autoglm_training.tokenizer import NUM_NUMBERS

EMBEDDING_STD = 0.05
DEEP_NORM = 0.02
"""Start of the branch norms below the first exit: deeper layers begin as near identities and are grown into."""
EMBEDDING_DROPOUT = 0.1
"""Wordings are few and the model learns them by heart: some noise keeps it from hanging on single words.
Pictures have none: there are always new ones, and noisy embeddings do not tell a place to within a row."""
POINT_WEIGHT = 4.0
"""A reply of thirty tokens holds two coordinates, and they are the hard ones."""
NAMED_WEIGHT = 2.0
"""Tokens of a thought that name an element: where the right one has to be found."""
WORD_DEPTH = 3
WORD_LOSS_WEIGHT = 0.3
CENTRE_LOSS_WEIGHT = 0.3
STANDING_LOSS_WEIGHT = 0.6
POINTING_LOSS_WEIGHT = 1.0


class TrainableDecoder(nn.Module):
    def __init__(self, number_ids: Sequence[int], objective: Objective = PLAIN, teacher: Teacher | None = None) -> None:
        super().__init__()
        if objective.beta and teacher is None:
            raise ValueError("a KL term (beta) needs a teacher")
        self.objective, self.teacher = objective, teacher
        self.decoder = TextDecoder(TEXT)
        self.exits = ExitHeads(TEXT, EXIT_DEPTHS, EXIT_ADAPTER_SIZE)
        self.number_ids: Tensor
        self.value_of_V: Tensor
        ids = torch.tensor(number_ids)
        self.register_buffer("number_ids", ids, persistent=False)
        values_V = torch.full((TEXT.vocab_size,), -1).index_copy_(0, ids, torch.arange(NUM_NUMBERS))
        self.register_buffer("value_of_V", values_V, persistent=False)
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        init_weights(self.decoder)
        embedding = self.decoder.embed_tokens.weight
        embedding.normal_(0.0, EMBEDDING_STD)
        embedding[self.number_ids] = number_codes() * EMBEDDING_STD
        for layer in self.decoder.layers[EXIT_DEPTHS[0] :]:
            assert isinstance(layer, DecoderLayer)
            layer.post_self_attn_layernorm.weight.fill_(DEEP_NORM)
            layer.post_mlp_layernorm.weight.fill_(DEEP_NORM)

    def embed(self, ids_BT: Tensor, media: Sequence[tuple[int, Tensor]]) -> Tensor:
        """Token embeddings, with noise in training, with each medium's rows [N, D] in the places of its token id."""
        hidden = F.dropout(self.decoder.embed_tokens(ids_BT), EMBEDDING_DROPOUT, self.training)
        for token, rows_ND in media:
            hidden = hidden.masked_scatter((ids_BT == token)[..., None], rows_ND.to(hidden.dtype))
        return hidden

    def loss(
        self,
        batch: Batch,
        media: Sequence[tuple[int, Tensor]],
        depth: int,
        grown: bool,
        meter: Meter,
        name: str,
        seen: SeenWords | None = None,
        taught: Pointing | None = None,
        teacher_media: Sequence[tuple[int, Tensor]] = (),
        centres: tuple[CentreMaps, SeenCentres] | None = None,
        stand: tuple[StandingMaps, SeenStandings] | None = None,
    ) -> Tensor:
        """Weighted mean of the exits' losses down to `depth`, plus what is `seen` of words, `centres` and how elements
        `stand`, and `taught` pointing.

        grown: False while the layers below `depth` are untrained; the full-depth norm then reads the stream at `depth`,
        since those layers start as identities. teacher_media: `media` as the teacher's own encoders see them.
        """
        device = self.number_ids.device
        ids_BT, positions_3BT = (torch.from_numpy(x).to(device) for x in (batch.ids_BT, batch.positions_3BT))
        meter.tokens += int(batch.real_BT.sum())
        hidden = self.embed(ids_BT, media)
        rotation = self.decoder.rotation(positions_3BT)
        plain = attend = causal_products()
        if batch.num_branches:
            real_BP = torch.from_numpy(batch.real_BT[:, : batch.prefix_length]).to(device)
            plain = attend = branch_products(batch.prefix_length, batch.num_branches, real_BP)
        looks: list[tuple[Tensor, Tensor]] = []
        if taught is not None:
            attend = watched(attend, POINT_LAYER, looks)
        targets = torch.from_numpy(batch.targets_BT)[:, 1:].to(device)
        where = targets != IGNORE
        targets_N, points_N = targets[where], torch.from_numpy(batch.points_BT)[:, 1:].to(device)[where]
        named_N = torch.from_numpy(~np.isnan(batch.boxes_BT4[..., 0]))[:, 1:].to(device)[where]
        graded = torch.where(points_N, POINT_WEIGHT, torch.where(named_N, NAMED_WEIGHT, 1.0))
        teacher_NV = None
        if self.teacher is not None and self.objective.beta:
            at_BT = F.pad(where, (0, 1))
            teacher_NV = self.teacher.logits(ids_BT, teacher_media, positions_3BT, plain, at_BT)
        total, weights, first = torch.zeros((), device=device), 0.0, 0
        sight = torch.zeros((), device=device)
        if seen is not None:
            hidden, first = self._span(0, WORD_DEPTH, hidden, rotation, attend), WORD_DEPTH
            word_loss = self._word_loss(hidden, seen)
            meter.add(f"{name}_words", float(word_loss.detach()))
            sight = WORD_LOSS_WEIGHT * word_loss
        if centres is not None or stand is not None:
            # What the pointing layer reads, so that it can find by these facts and carry the place that was found.
            hidden, first = self._span(first, POINT_LAYER, hidden, rotation, attend), POINT_LAYER
        if centres is not None:
            centre_loss, near = centres[0](hidden, self.decoder.embed_tokens.weight[self.number_ids], centres[1])
            meter.add(f"{name}_centres", float(centre_loss.detach()))
            meter.add(f"{name}_centre_near", float(near))
            sight = sight + CENTRE_LOSS_WEIGHT * centre_loss
        if stand is not None:
            standing_loss, right = stand[0](hidden, self.decoder.lm_head, stand[1])
            meter.add(f"{name}_standing", float(standing_loss.detach()))
            meter.add(f"{name}_facts_right", float(right))
            sight = sight + STANDING_LOSS_WEIGHT * standing_loss
        for last in [d for d in (*EXIT_DEPTHS, TEXT.num_layers) if d <= depth]:
            hidden = self._span(first, last, hidden, rotation, attend)
            first = last
            streams = [(last, self._read(last, hidden[:, :-1][where]))]
            if last == depth and not grown and last < TEXT.num_layers:
                streams.append((TEXT.num_layers, self.decoder.norm(hidden[:, :-1][where])))
            for exit_depth, stream in streams:
                logits = self.decoder.lm_head(stream)
                losses = answer_loss(logits, targets_N, points_N, self.number_ids, self.value_of_V)
                answer = self.objective.alpha * (losses * graded).sum() / graded.sum()
                if teacher_NV is not None:
                    told = distillation_loss(logits, teacher_NV, self.objective.temperature)
                    answer = answer + self.objective.beta * told
                    meter.add(f"{name}{exit_depth}_told_loss", float(told.detach()))
                weight = exit_weight(exit_depth, TEXT.num_layers)
                total, weights = total + weight * answer, weights + weight
                if exit_depth == last:
                    self._measure(meter, f"{name}{last}", logits, targets_N, points_N, losses)
        if taught is not None and looks:
            pointed, mass = pointing_loss(*looks[0], taught)
            meter.add(f"{name}_inside", float(mass))
            total = total + POINTING_LOSS_WEIGHT * weights * pointed
        return total / weights + sight

    def rounding(self) -> AbstractContextManager[None]:
        """Where forward and backward belong: on rounded weights, if the objective says so."""
        return rounded_weights(self.decoder.layers) if self.objective.rounds_weights else nullcontext()

    def rounding_losses(self, meter: Meter) -> Iterator[Tensor]:
        """The pull towards rounded weights, if the objective has one; outside of `rounding`."""
        if self.objective.gamma:
            error = rounding_error(self.decoder.layers)
            meter.add("rounding_loss", float(error.detach()))
            yield self.objective.gamma * error

    def _span(self, first: int, last: int, hidden: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
        """Layers [first, last), in training each left out now and then, the deeper the more often."""
        for layer in range(first, last):
            chance = self.objective.layer_dropout * (2 ** (layer / (TEXT.num_layers - 1)) - 1)
            if not (self.training and chance and float(torch.rand(())) < chance):
                hidden = self.decoder.run_span(layer, layer + 1, hidden, rotation, attend)
        return hidden

    def _word_loss(self, hidden_BTD: Tensor, seen: SeenWords) -> Tensor:
        """The first layers learn to see a screen's words as the tokens that spell them."""
        device = hidden_BTD.device
        stream = F.rms_norm(hidden_BTD[seen.where_BT.to(device)].float(), (TEXT.hidden_size,))
        log_probs = F.log_softmax(self.decoder.lm_head(stream).float(), dim=-1)
        return -(seen.tokens_NV.to(device) * log_probs).sum(-1).mean()

    def _read(self, depth: int, stream_ND: Tensor) -> Tensor:
        return self.exits(depth, stream_ND) if depth in EXIT_DEPTHS else self.decoder.norm(stream_ND)

    def _measure(
        self, meter: Meter, name: str, logits: Tensor, targets: Tensor, points: Tensor, losses: Tensor
    ) -> None:
        with torch.no_grad():
            best = logits.argmax(-1)
            words = ~points
            meter.add(f"{name}_loss", float(losses[words].mean()))
            meter.add(f"{name}_acc", float((best == targets)[words].float().mean()))
            if bool(points.any()):
                off = (self.value_of_V[best[points]] - self.value_of_V[targets[points]]).abs()
                meter.add(f"{name}_near20", float((off <= 20).float().mean()), float(points.sum()))


def number_codes() -> Tensor:
    """[1000, D] of unit variance: neighbouring numbers start alike."""
    return smooth_codes(NUM_NUMBERS, TEXT.hidden_size, shortest=20.0, longest=4000.0, seed=3)

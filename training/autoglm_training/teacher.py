"""Distillation: a larger checkpoint with the same tokenizer says how likely each answer token is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from autoglm_backend.models.layers import Attend
from autoglm_training.loading import load_checkpoint

Media = Sequence[tuple[int, Tensor]]


class Teacher:
    """Raises ValueError for a checkpoint whose tokens are not the student's."""

    def __init__(self, directory: Path, tokenizer: Tokenizer, device: str = "cpu") -> None:
        loaded = load_checkpoint(directory, device=device)
        if loaded.tokenizer.get_vocab() != tokenizer.get_vocab():
            raise ValueError(f"{directory}: another tokenizer than the student's, so its answers cannot be compared")
        self._decoder, self.vision = loaded.decoder, loaded.vision

    @torch.no_grad()
    def logits(self, ids_BT: Tensor, media: Media, positions_3BT: Tensor, attend: Attend, where_BT: Tensor) -> Tensor:
        """[N, V] at the marked tokens. media: (placeholder's id, the teacher's own embeddings [M, D])."""
        decoder = self._decoder
        hidden = decoder.embed_tokens(ids_BT)
        for token, rows_MD in media:
            hidden = hidden.masked_scatter((ids_BT == token)[..., None], rows_MD.to(hidden.dtype))
        rotation = decoder.rotation(positions_3BT)
        return decoder.logits(decoder.run_span(0, decoder.config.num_layers, hidden, rotation, attend)[where_BT])


def distillation_loss(student_NV: Tensor, teacher_NV: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of softened distributions, times temperature^2 (Hinton et al., 1503.02531)."""
    student = F.log_softmax(student_NV.float() / temperature, dim=-1)
    teacher = F.log_softmax(teacher_NV.float() / temperature, dim=-1)
    return F.kl_div(student, teacher, log_target=True, reduction="batchmean") * temperature**2

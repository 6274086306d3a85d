"""The encoders as graphs with the tensors of their Triton models: no data-dependent shape, no Python list.

What a plan takes is what the Python model takes (`autoglm_protocol/tensors.py`), so either can stand in the model
repository. A plan encodes one picture at a time, which is how the pipeline sends them.

Shape legend: P patches, K pixels of a patch, M merged tokens, F mel frames, C mel bands, A speech tokens, D hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autoglm_backend.models.speech import SpeechEncoder
from autoglm_backend.models.vision import VisionEncoder
from autoglm_protocol.tensors import EMPTY_SLOT


class VisionGraph(nn.Module):
    def __init__(self, encoder: VisionEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, patches: Tensor, grids: Tensor) -> Tensor:
        """Embeddings float32 [M, D] of patches float32 [P, K] in merge order; grids int32 [1, 2]: rows, columns."""
        merge = self.encoder.config.spatial_merge_size
        num_patches = patches.shape[0]
        # Row and column by arithmetic on the patch number: a meshgrid of `grids` would have a shape that TensorRT
        # learns only while it runs.
        number = torch.arange(num_patches, device=patches.device)
        columns = grids[0, 1].to(torch.int64)
        block, within = number // (merge * merge), number % (merge * merge)
        blocks_per_row = columns // merge
        places_P2 = torch.stack(
            (
                block // blocks_per_row * merge + within // merge,
                block % blocks_per_row * merge + within % merge,
            ),
            dim=-1,
        )
        sizes_P2 = grids.to(torch.int64).expand(num_patches, 2)
        dtype = self.encoder.patch_embed.proj.weight.dtype
        features_PD = self.encoder.encode_places(patches.to(dtype), places_P2, sizes_P2, [num_patches])
        return self.encoder.merge(features_PD).float()


class SpeechGraph(nn.Module):
    token_of_piece: Tensor

    def __init__(self, encoder: SpeechEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        config = encoder.config
        tokens = config.piece_token_ids or [EMPTY_SLOT] * config.num_pieces
        table = torch.tensor([EMPTY_SLOT, *tokens], dtype=torch.int32)
        self.register_buffer("token_of_piece", table, persistent=False)

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings float32 [A, D] and heard tokens int32 [A] of log-mel float32 [F, C].

        Heard tokens stand at the end; EMPTY_SLOT before them, because a plan's output cannot shrink.
        """
        dtype = self.encoder.conv1.weight.dtype
        tokens_BAD = self.encoder.project(self.encoder.encode_frames(mel.to(dtype)[None]))
        if not self.encoder.config.num_pieces:
            return tokens_BAD[0].float(), torch.full_like(tokens_BAD[0, :, 0], EMPTY_SLOT, dtype=torch.int32)
        pieces_A = self._hear(tokens_BAD[0])
        return self.encoder.piece_embedding(pieces_A).float(), self.token_of_piece[pieces_A]

    def _hear(self, tokens_AD: Tensor) -> Tensor:
        """`SpeechEncoder.hear` without a sort: each heard piece goes straight to its place from the right."""
        best_A = self.encoder.piece_head(tokens_AD).argmax(-1)
        before_A = torch.cat((torch.zeros_like(best_A[:1]), best_A[:-1]))
        heard_A = ((best_A != 0) & (best_A != before_A)).to(torch.int64)
        rank_A = heard_A.cumsum(0)
        num_slots = tokens_AD.shape[0]
        # Slot `num_slots` takes what was not heard and is cut off.
        place_A = torch.where(heard_A == 1, num_slots - rank_A[-1] + rank_A - 1, num_slots)
        slots = torch.zeros(num_slots + 1, dtype=best_A.dtype, device=best_A.device)
        return slots.scatter(0, place_A, best_A)[:num_slots]

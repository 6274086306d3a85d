"""The GLM-4.1V vision transformer: patches to one embedding per 2x2 merged patch, at any picture size.

Reference: transformers' `Glm4vVisionModel` (equal within float32 rounding, `tests/models/test_parity.py`).
Patches come in merge order: the four patches of one 2x2 block follow each other.

Shape legend: P patches of all pictures laid end to end, M = P / 4 merged tokens, D hidden, H heads, d head dimension.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoglm_backend.models.config import VisionConfig
from autoglm_backend.models.layers import RMSNorm, Rotation, inverse_frequencies, rotate_halves

Grid = tuple[int, int]
"""Rows and columns of one picture in patches; both are multiples of the merge size."""


class VisionAttention(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.attention_bias)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, hidden_PD: Tensor, rotation: Rotation, patches_per_picture: Sequence[int]) -> Tensor:
        qkv = self.qkv(hidden_PD).view(hidden_PD.shape[0], 3, self.num_heads, -1)
        q_PHd, k_PHd, v_PHd = qkv.unbind(1)
        q_PHd, k_PHd = rotate_halves(q_PHd, rotation), rotate_halves(k_PHd, rotation)
        if len(set(patches_per_picture)) == 1:
            # Pictures of one size attend in one call: training on small crops is bound by the number of calls.
            num_pictures = len(patches_per_picture)
            q, k, v = (x.unflatten(0, (num_pictures, -1)).transpose(1, 2) for x in (q_PHd, k_PHd, v_PHd))
            out_BHPd = F.scaled_dot_product_attention(q, k, v)
            return self.proj(out_BHPd.transpose(1, 2).flatten(2).flatten(0, 1))
        pictures: list[Tensor] = []
        for q, k, v in zip(*(x.split(list(patches_per_picture)) for x in (q_PHd, k_PHd, v_PHd)), strict=True):
            out = F.scaled_dot_product_attention(
                q.transpose(0, 1)[None], k.transpose(0, 1)[None], v.transpose(0, 1)[None]
            )
            pictures.append(out[0].transpose(0, 1).flatten(1))
        return self.proj(torch.cat(pictures))


class VisionMLP(nn.Module):
    def __init__(self, size: int, inner_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(size, inner_size, bias=False)
        self.up_proj = nn.Linear(size, inner_size, bias=False)
        self.down_proj = nn.Linear(inner_size, size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(hidden)) * self.up_proj(hidden))


class VisionBlock(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1 = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.norm2 = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attn = VisionAttention(config)
        self.mlp = VisionMLP(config.hidden_size, config.out_hidden_size)

    def forward(self, hidden_PD: Tensor, rotation: Rotation, patches_per_picture: Sequence[int]) -> Tensor:
        hidden_PD = hidden_PD + self.attn(self.norm1(hidden_PD), rotation, patches_per_picture)
        return hidden_PD + self.mlp(self.norm2(hidden_PD))


class PatchEmbed(nn.Module):
    """The checkpoint stores a Conv3d; with kernel = stride = patch it is one linear map, which is what runs."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        kernel = (config.temporal_patch_size, config.patch_size, config.patch_size)
        self.proj = nn.Conv3d(config.in_channels, config.hidden_size, kernel_size=kernel, stride=kernel)

    def forward(self, patches_PK: Tensor) -> Tensor:
        return F.linear(patches_PK, self.proj.weight.flatten(1), self.proj.bias)


class PositionGrid(nn.Module):
    """A learned square grid, sampled bicubically over the whole picture."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.side = config.grid_side
        self.position_embedding = nn.Embedding(self.side**2, config.hidden_size)

    def forward(self, rows_P: Tensor, columns_P: Tensor, heights_P: Tensor, widths_P: Tensor) -> Tensor:
        weight = self.position_embedding.weight
        grid_1DSS = weight.view(self.side, self.side, -1).permute(2, 0, 1)[None].float()
        x = (columns_P + 0.5) / widths_P * 2 - 1
        y = (rows_P + 0.5) / heights_P * 2 - 1
        at_11P2 = torch.stack((x, y), dim=-1)[None, :, None].float()
        sampled = F.grid_sample(grid_1DSS, at_11P2, mode="bicubic", align_corners=False, padding_mode="border")
        return sampled[0, :, :, 0].T.to(weight.dtype)


class Merger(VisionMLP):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__(config.out_hidden_size, config.intermediate_size)
        self.proj = nn.Linear(config.out_hidden_size, config.out_hidden_size, bias=False)
        self.post_projection_norm = nn.LayerNorm(config.out_hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(F.gelu(self.post_projection_norm(self.proj(hidden))))


class VisionEncoder(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.embeddings = PositionGrid(config)
        self.post_conv_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.blocks = nn.ModuleList(VisionBlock(config) for _ in range(config.depth))
        self.post_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        merge = config.spatial_merge_size
        self.downsample = nn.Conv2d(config.hidden_size, config.out_hidden_size, kernel_size=merge, stride=merge)
        self.merger = Merger(config)

    def encode_patches(self, patches_PK: Tensor, grids: Sequence[Grid]) -> Tensor:
        """Patch features [P, D] before the merge (training reads characters from them).

        patches_PK: flattened pixels, K = channels * temporal * patch * patch, in merge order. grids: one per picture.
        """
        device, merge = patches_PK.device, self.config.spatial_merge_size
        places_P2 = torch.cat([merge_order_places(rows, columns, merge) for rows, columns in grids]).to(device)
        sizes = torch.tensor([(r, c) for r, c in grids], device=device)
        counts = [rows * columns for rows, columns in grids]
        sizes_P2 = sizes.repeat_interleave(torch.tensor(counts, device=device), dim=0)
        return self.encode_places(patches_PK, places_P2, sizes_P2, counts)

    def encode_places(
        self, patches_PK: Tensor, places_P2: Tensor, sizes_P2: Tensor, patches_per_picture: Sequence[int]
    ) -> Tensor:
        """`encode_patches` where row and column of every patch, and its picture's size in patches, are known."""
        hidden_PD = self.post_conv_layernorm(self.patch_embed(patches_PK))
        hidden_PD = hidden_PD + self.embeddings(places_P2[:, 0], places_P2[:, 1], sizes_P2[:, 0], sizes_P2[:, 1])
        rotation = self._rotation(places_P2)
        for block in self.blocks:
            hidden_PD = block(hidden_PD, rotation, patches_per_picture)
        return self.post_layernorm(hidden_PD)

    def merge(self, features_PD: Tensor) -> Tensor:
        """Patch features [P, D] to decoder embeddings [M, out_hidden]."""
        side = self.config.spatial_merge_size
        # The 2x2 convolution over one merge block is a linear map of its patches laid side by side.
        blocks = features_PD.view(-1, side * side, features_PD.shape[-1]).transpose(1, 2).flatten(1)
        return self.merger(F.linear(blocks, self.downsample.weight.flatten(1), self.downsample.bias))

    def forward(self, patches_PK: Tensor, grids: Sequence[Grid]) -> Tensor:
        return self.merge(self.encode_patches(patches_PK, grids))

    def _rotation(self, places_P2: Tensor) -> Rotation:
        axis_dim = self.config.hidden_size // self.config.num_heads // 2
        frequencies = inverse_frequencies(axis_dim, self.config.rope_theta, places_P2.device)
        angles = (places_P2.float()[..., None] * frequencies).flatten(1)
        return Rotation(angles.cos(), angles.sin())


def merge_order_places(rows: int, columns: int, merge: int) -> Tensor:
    """Row and column of every patch, [rows * columns, 2], in merge order."""
    places = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), dim=-1)
    blocks = places.view(rows // merge, merge, columns // merge, merge, 2).permute(0, 2, 1, 3, 4)
    return blocks.reshape(-1, 2)

"""The vision encoder as a service: patches of one or more pictures laid end to end -> embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from autoglm_backend.encoders.placement import Placement
from autoglm_backend.encoders.residency import Observe, Resident
from autoglm_backend.models.config import VisionConfig, load_model_config
from autoglm_backend.models.shards import checkpoint_shards, vision_name
from autoglm_backend.models.vision import VisionEncoder
from autoglm_backend.models.weights import Progress, load_module
from autoglm_protocol.errors import InvalidRequestError

MAX_PATCHES = 65_536
"""Of one call, all pictures together: attention memory grows with it. A 1440x3200 screenshot has 23,256."""


class VisionService:
    def __init__(self, encoder: Resident[VisionEncoder], config: VisionConfig, placement: Placement) -> None:
        self.config = config
        self._encoder = encoder
        self._placement = placement

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint_dir: Path,
        device: str,
        *,
        dtype: str = "auto",
        idle_s: float | None = None,
        observe: Observe | None = None,
        progress: Progress | None = None,
    ) -> VisionService:
        """Load and warm up. Raises CheckpointError naming the file, ValueError for a device that is not there.

        idle_s, observe: see `Resident`. progress: of the first load.
        """
        config = load_model_config(checkpoint_dir).vision
        placement = Placement.of(device, dtype)
        reports = iter([progress])

        def load() -> VisionEncoder:
            return _load(checkpoint_dir, config, placement, next(reports, None))

        service = cls(Resident(load, placement.device, idle_s=idle_s, observe=observe), config, placement)
        service.warm_up()
        return service

    def close(self) -> None:
        self._encoder.close()

    def encode(self, patches_PK: NDArray[np.float32], grids: NDArray[np.int32]) -> NDArray[np.float32]:
        """Embeddings float32 [P / merge^2, hidden] of patches float32 [P, K] in merge order.

        grids: int32 [pictures, 2], rows and columns in patches. Raises InvalidRequestError naming the tensor.
        """
        self._check(patches_PK, grids)
        placement = self._placement
        patches = torch.from_numpy(patches_PK).to(placement.device, placement.dtype)
        with torch.inference_mode(), self._encoder.use() as encoder:
            embeddings = encoder(patches, [(int(rows), int(columns)) for rows, columns in grids])
            return embeddings.float().cpu().numpy()

    def warm_up(self) -> None:
        side = 8 * self.config.spatial_merge_size
        patches_PK = np.zeros((side * side, self.config.patch_dim), dtype=np.float32)
        self.encode(patches_PK, np.array([(side, side)], dtype=np.int32))

    def _check(self, patches_PK: NDArray[np.float32], grids: NDArray[np.int32]) -> None:
        merge = self.config.spatial_merge_size
        if not len(grids):
            raise InvalidRequestError("input tensor grids is empty", param="grids")
        if (grids < 1).any() or (grids % merge).any():
            raise InvalidRequestError(
                f"input tensor grids holds {grids.tolist()}, rows and columns must be positive multiples of {merge}",
                param="grids",
            )
        num_patches = int(grids.astype(np.int64).prod(axis=1).sum())
        if num_patches > MAX_PATCHES:
            raise InvalidRequestError(
                f"input tensor grids asks for {num_patches} patches, at most {MAX_PATCHES} are supported", param="grids"
            )
        if patches_PK.shape != (num_patches, self.config.patch_dim):
            raise InvalidRequestError(
                f"input tensor patches has shape {list(patches_PK.shape)}, "
                f"grids asks for {[num_patches, self.config.patch_dim]}",
                param="patches",
            )
        if not np.isfinite(patches_PK).all():
            raise InvalidRequestError("input tensor patches holds values that are not finite", param="patches")


def _load(checkpoint_dir: Path, config: VisionConfig, placement: Placement, progress: Progress | None) -> VisionEncoder:
    with torch.device("meta"):
        encoder = VisionEncoder(config)
    encoder = encoder.to(placement.dtype).to_empty(device=placement.device)
    load_module(encoder, checkpoint_shards(checkpoint_dir), vision_name, progress)
    return encoder.eval().requires_grad_(False)

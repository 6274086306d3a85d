"""The speech encoder as a service: log-mel frames of one clip -> speech tokens' embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from autoglm_backend.encoders.placement import Placement
from autoglm_backend.models.speech import SpeechEncoder, load_speech_encoder
from autoglm_protocol.errors import InvalidRequestError

MAX_FRAMES = 6_000
"""One minute; a command lasts seconds."""


class SpeechService:
    """Refuses every request when the checkpoint has no speech encoder: Triton wants all models of the repository."""

    def __init__(self, encoder: SpeechEncoder | None, placement: Placement) -> None:
        self._encoder = encoder
        self._placement = placement

    @classmethod
    def from_checkpoint(cls, checkpoint_dir: Path, device: str) -> SpeechService:
        """Load and warm up. Raises CheckpointError naming the file, ValueError for a device that is not there."""
        placement = Placement.of(device)
        encoder = load_speech_encoder(checkpoint_dir)
        if encoder is not None:
            encoder = encoder.to(placement.device, placement.dtype)
        service = cls(encoder, placement)
        service.warm_up()
        return service

    def encode(self, mel_FC: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings float32 [speech tokens, hidden] of float32 [frames of 10 ms, mel bands].

        Raises InvalidRequestError naming the tensor.
        """
        if self._encoder is None:
            raise InvalidRequestError("this checkpoint has no speech encoder", param="mel")
        num_frames, num_mels = mel_FC.shape
        wanted = self._encoder.config.num_mels
        if not 1 <= num_frames <= MAX_FRAMES or num_mels != wanted:
            raise InvalidRequestError(
                f"input tensor mel has shape {list(mel_FC.shape)}, expected 1 to {MAX_FRAMES} frames of {wanted} bands",
                param="mel",
            )
        if not np.isfinite(mel_FC).all():
            raise InvalidRequestError("input tensor mel holds values that are not finite", param="mel")
        placement = self._placement
        with torch.inference_mode():
            mel_BFC = torch.from_numpy(mel_FC).to(placement.device, placement.dtype)[None]
            return self._encoder(mel_BFC)[0].float().cpu().numpy()

    def warm_up(self) -> None:
        if self._encoder is not None:
            self.encode(np.zeros((100, self._encoder.config.num_mels), dtype=np.float32))

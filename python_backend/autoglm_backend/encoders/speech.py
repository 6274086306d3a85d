"""The speech encoder as a service: log-mel frames of one clip -> speech tokens' embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from autoglm_backend.encoders.placement import Placement
from autoglm_backend.encoders.residency import Observe, Resident
from autoglm_backend.models.config import CheckpointError, SpeechConfig, load_speech_config
from autoglm_backend.models.speech import CONFIG_NAME, SPEECH_DIR, SpeechEncoder, load_speech_encoder
from autoglm_backend.models.weights import Progress
from autoglm_protocol.errors import InvalidRequestError

MAX_FRAMES = 6_000
"""One minute; a command lasts seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    embeddings_AD: NDArray[np.float32]
    """float32 [speech tokens, hidden]."""
    token_ids: NDArray[np.int32]
    """int32 [heard], the decoder's text tokens in order; none where the checkpoint does not say them."""


class SpeechService:
    """Refuses every request when the checkpoint has no speech encoder: Triton wants all models of the repository."""

    def __init__(
        self, encoder: Resident[SpeechEncoder] | None, config: SpeechConfig | None, placement: Placement
    ) -> None:
        # encoder and config: both or neither.
        self._encoder = encoder
        self._config = config
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
    ) -> SpeechService:
        """Load and warm up. Raises CheckpointError naming the file, ValueError for a device that is not there.

        idle_s, observe: see `Resident`. progress: of the first load.
        """
        placement = Placement.of(device, dtype)
        sidecar = checkpoint_dir / SPEECH_DIR
        if not sidecar.is_dir():
            return cls(None, None, placement)
        reports = iter([progress])

        def load() -> SpeechEncoder:
            encoder = load_speech_encoder(checkpoint_dir, next(reports, None))
            if encoder is None:
                raise CheckpointError(f"{sidecar}: is no longer there")
            return encoder.to(placement.device, placement.dtype)

        resident = Resident(load, placement.device, idle_s=idle_s, observe=observe)
        service = cls(resident, load_speech_config(sidecar / CONFIG_NAME), placement)
        service.warm_up()
        return service

    def close(self) -> None:
        if self._encoder is not None:
            self._encoder.close()

    def encode(self, mel_FC: NDArray[np.float32]) -> NDArray[np.float32]:
        """The embeddings of `listen` alone."""
        return self.listen(mel_FC).embeddings_AD

    def hear(self, mel_FC: NDArray[np.float32]) -> NDArray[np.int32]:
        """The token ids of `listen` alone."""
        return self.listen(mel_FC).token_ids

    def listen(self, mel_FC: NDArray[np.float32]) -> Heard:
        """What a clip of float32 [frames of 10 ms, mel bands] says. Raises InvalidRequestError naming the tensor."""
        if self._encoder is None or self._config is None:
            raise InvalidRequestError("this checkpoint has no speech encoder", param="mel")
        num_frames, num_mels = mel_FC.shape
        wanted = self._config.num_mels
        if not 1 <= num_frames <= MAX_FRAMES or num_mels != wanted:
            raise InvalidRequestError(
                f"input tensor mel has shape {list(mel_FC.shape)}, expected 1 to {MAX_FRAMES} frames of {wanted} bands",
                param="mel",
            )
        if not np.isfinite(mel_FC).all():
            raise InvalidRequestError("input tensor mel holds values that are not finite", param="mel")
        placement = self._placement
        with torch.inference_mode(), self._encoder.use() as encoder:
            mel_BFC = torch.from_numpy(mel_FC).to(placement.device, placement.dtype)[None]
            embeddings_BAD, pieces_BA = encoder.listen(mel_BFC)
            return Heard(embeddings_AD=embeddings_BAD[0].float().cpu().numpy(), token_ids=self._token_ids(pieces_BA))

    def _token_ids(self, pieces_BA: torch.Tensor | None) -> NDArray[np.int32]:
        assert self._config is not None
        ids = self._config.piece_token_ids
        heard = [] if pieces_BA is None or not ids else [piece for piece in pieces_BA[0].tolist() if piece]
        return np.array([ids[piece - 1] for piece in heard], dtype=np.int32)

    def warm_up(self) -> None:
        if self._config is not None:
            self.encode(np.zeros((100, self._config.num_mels), dtype=np.float32))

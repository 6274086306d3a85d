"""Pictures and clips of a request: bytes to what the encoders take, with the number of tokens they will become.

Nothing is decoded for an item whose embeddings the cache already has.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from autoglm_backend.bls.embedding_cache import EmbeddedMedia, EmbeddingCache
from autoglm_backend.bls.stages import Stages
from autoglm_backend.cpus import usable_cpus
from autoglm_backend.models.config import SpeechConfig
from autoglm_backend.preprocess.audio import SAMPLE_RATE, decode_audio, log_mel
from autoglm_backend.preprocess.image import ImageProcessorConfig, preprocess_image
from autoglm_backend.preprocess.media_error import MediaError
from autoglm_backend.preprocess.picture_file import decode_picture
from autoglm_protocol.chat import AudioPart, ChatOptions, ImagePart
from autoglm_protocol.errors import InvalidRequestError

BLANK_SIDE_PX = 28
SILENCE_S = 0.1
LOW_DETAIL_PIXELS = 512 * 512
"""OpenAI's low detail looks at a picture of 512 x 512."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedMedia:
    """One item, ready for its encoder."""

    key: bytes
    """SHA-256 of the file and of the settings that turn it into tensors."""
    num_tokens: int
    cached: EmbeddedMedia | None = None
    encode: Callable[[Stages], EmbeddedMedia] | None = None
    """Runs the encoder; None for an item that was cached."""


class MediaReader:
    """Thread-safe. `speech` is None for checkpoints without a speech encoder."""

    def __init__(self, image: ImageProcessorConfig, speech: SpeechConfig | None, cache: EmbeddingCache) -> None:
        self._image = image
        self._speech = speech
        self._cache = cache
        self._speech_salt = repr(speech).encode()
        # Many large files at once would fill the memory with pixels, and keep gateway and decoder from the cores.
        self._decoding = threading.Semaphore(max(1, usable_cpus() // 2))

    def read_image(self, part: ImagePart, options: ChatOptions, where: str) -> PreparedMedia:
        """Raises InvalidRequestError naming `where` or the pixel limit."""
        config = image_budget(self._image, part, options)
        key = hashlib.sha256(repr(config).encode() + part.data).digest()
        return self._cached(key) or self._prepare_image(key, part.data, config, where)

    def read_audio(self, part: AudioPart, where: str) -> PreparedMedia:
        """Raises InvalidRequestError naming `where`."""
        # the declared format decides whether the file is taken at all
        key = hashlib.sha256(self._speech_salt + repr(part.format).encode() + part.data).digest()
        return self._cached(key) or self._prepare_audio(key, part, where)

    @property
    def hears_text(self) -> bool:
        """Whether the speech encoder can say which text it heard."""
        return self._speech is not None and bool(self._speech.piece_token_ids)

    def mel_of(self, part: AudioPart, where: str) -> NDArray[np.float32]:
        """Log-mel [frames, bands] of a clip. Raises InvalidRequestError naming `where`."""
        try:
            with self._decoding:
                return self._mel(decode_audio(part.data, declared_format=part.format))
        except MediaError as error:
            raise InvalidRequestError(error.message, code=error.code, param=where) from error

    def num_audio_tokens(self, mel_FC: NDArray[np.float32]) -> int:
        assert self._speech is not None, "the planner refuses audio without a speech encoder"
        return self._speech.num_tokens(len(mel_FC))

    def embed(self, media: PreparedMedia, stages: Stages) -> tuple[EmbeddedMedia, bool]:
        """The item's embeddings, and whether the cache (or another request at this moment) spared the encoder."""
        if media.cached is not None:
            return media.cached, True
        encode = media.encode
        assert encode is not None
        return self._cache.get_or_compute(media.key, lambda: encode(stages))

    def encode_blank(self, stages: Stages) -> None:
        """Run the vision encoder for nothing, as ENABLE_DYNAMIC_GRAPH=False asks for."""
        patches = preprocess_image(Image.new("RGB", (BLANK_SIDE_PX, BLANK_SIDE_PX)), self._image)
        stages.encode_image(patches.patches_PK, patches.grid)

    def encode_silence(self, stages: Stages) -> None:
        stages.encode_audio(self._mel(np.zeros(int(SILENCE_S * SAMPLE_RATE), dtype=np.float32)))

    def _cached(self, key: bytes) -> PreparedMedia | None:
        media = self._cache.get(key)
        if media is None:
            return None
        return PreparedMedia(key=key, num_tokens=media.num_tokens, cached=media)

    def _prepare_image(self, key: bytes, data: bytes, config: ImageProcessorConfig, where: str) -> PreparedMedia:
        try:
            with self._decoding:
                patches = preprocess_image(decode_picture(data), config)
        except MediaError as error:
            raise InvalidRequestError(error.message, code=error.code, param=where) from error
        rows, columns = patches.grid
        merged = (rows // self._image.merge_size, columns // self._image.merge_size)

        def encode(stages: Stages) -> EmbeddedMedia:
            return EmbeddedMedia(embeddings_MD=stages.encode_image(patches.patches_PK, patches.grid), grid=merged)

        return PreparedMedia(key=key, num_tokens=patches.num_tokens, encode=encode)

    def _prepare_audio(self, key: bytes, part: AudioPart, where: str) -> PreparedMedia:
        mel_FC = self.mel_of(part, where)

        def encode(stages: Stages) -> EmbeddedMedia:
            return EmbeddedMedia(embeddings_MD=stages.encode_audio(mel_FC), grid=None)

        return PreparedMedia(key=key, num_tokens=self.num_audio_tokens(mel_FC), encode=encode)

    def _mel(self, wave_T: NDArray[np.float32]) -> NDArray[np.float32]:
        assert self._speech is not None, "the planner refuses audio without a speech encoder"
        return log_mel(wave_T, self._speech.num_mels)


def image_budget(config: ImageProcessorConfig, part: ImagePart, options: ChatOptions) -> ImageProcessorConfig:
    """The deployment's `config` with what a request asks of this picture. Its upper bound is never exceeded.

    Raises InvalidRequestError naming the limit that leaves no token.
    """
    try:
        asked = config.within(options.max_pixels, options.min_pixels)
        return asked.within(LOW_DETAIL_PIXELS) if part.detail == "low" else asked
    except ValueError as error:
        raise InvalidRequestError(str(error), param="max_pixels") from error

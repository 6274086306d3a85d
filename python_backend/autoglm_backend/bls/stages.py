"""The models that a pipeline calls, whoever runs them: other models of a Triton server, or this very process."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from autoglm_protocol.events import Cancelled, Failed, Finished, StreamEvent
from autoglm_protocol.wire import DecodeRequest


class Stages(Protocol):
    """Called from many threads at once. Each raises AutoglmError."""

    def encode_image(self, patches_PK: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.float32]:
        """float32 [patches / 4, hidden] of one picture of `grid` rows and columns of patches."""
        ...

    def encode_audio(self, mel_FC: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 [speech tokens, hidden] of one clip of log-mel frames."""
        ...

    def hear(self, mel_FC: NDArray[np.float32]) -> NDArray[np.int32]:
        """The decoder's text tokens that the speech encoder spells, int32 [heard]; none where it spells no text."""
        ...

    def decode(self, request: DecodeRequest) -> Iterator[StreamEvent]:
        """Events up to a terminal one; must be read to the end. A failure is raised, not yielded."""
        ...

    def cancel(self, tag: str) -> None:
        """Let the stream of that request end in Cancelled; no effect on requests that are over or not yet there."""
        ...


class VisionEncoding(Protocol):
    def encode(self, patches_PK: NDArray[np.float32], grids: NDArray[np.int32]) -> NDArray[np.float32]: ...


class SpeechEncoding(Protocol):
    def encode(self, mel_FC: NDArray[np.float32]) -> NDArray[np.float32]: ...

    def hear(self, mel_FC: NDArray[np.float32]) -> NDArray[np.int32]: ...


class Decoding(Protocol):
    def add(self, request: DecodeRequest, emit: Emit) -> None: ...

    def abort(self, tag: str) -> None: ...


class Emit(Protocol):
    def __call__(self, event: StreamEvent, /) -> None: ...


class LocalStages:
    """All models in this process: for tests and for tools that need no server."""

    def __init__(self, vision: VisionEncoding, speech: SpeechEncoding, decoder: Decoding) -> None:
        self._vision = vision
        self._speech = speech
        self._decoder = decoder

    def encode_image(self, patches_PK: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.float32]:
        return self._vision.encode(patches_PK, np.array([grid], dtype=np.int32))

    def encode_audio(self, mel_FC: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._speech.encode(mel_FC)

    def hear(self, mel_FC: NDArray[np.float32]) -> NDArray[np.int32]:
        return self._speech.hear(mel_FC)

    def decode(self, request: DecodeRequest) -> Iterator[StreamEvent]:
        events: queue.SimpleQueue[StreamEvent] = queue.SimpleQueue()
        self._decoder.add(request, events.put)
        while True:
            event = events.get()
            if isinstance(event, Failed):
                raise event.error
            yield event
            if isinstance(event, Finished | Cancelled):
                return

    def cancel(self, tag: str) -> None:
        self._decoder.abort(tag)

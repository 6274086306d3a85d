"""The pipeline's stages as other models of the same Triton server (business logic scripting)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from autoglm_backend import triton_io
from autoglm_backend.doorways.receipts import Receipts
from autoglm_protocol.events import Failed, StreamEvent
from autoglm_protocol.tensors import EMPTY_SLOT, SPEECH_ENCODER, TEXT_DECODER, VISION_ENCODER
from autoglm_protocol.wire import DecodeRequest, cancel_to_tensors, decode_to_tensors, event_from_tensors


class TritonStages:
    """See `autoglm_backend.bls.stages.Stages`."""

    def __init__(self) -> None:
        self._receipts = Receipts.of_this_run()

    def encode_image(self, patches_PK: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.float32]:
        tensors = {"patches": patches_PK, "grids": np.array([grid], dtype=np.int32)}
        return triton_io.call(VISION_ENCODER, tensors)["embeddings"]

    def encode_audio(self, mel_FC: NDArray[np.float32]) -> NDArray[np.float32]:
        return triton_io.call(SPEECH_ENCODER, {"mel": mel_FC})["embeddings"]

    def hear(self, mel_FC: NDArray[np.float32]) -> NDArray[np.int32]:
        slots = triton_io.call(SPEECH_ENCODER, {"mel": mel_FC})["token_ids"]
        return slots[slots != EMPTY_SLOT]

    def decode(self, request: DecodeRequest) -> Iterator[StreamEvent]:
        receipt = None if self._receipts is None else self._receipts.lend()
        if receipt is None:
            answers = triton_io.stream(TEXT_DECODER, decode_to_tensors(request))
        else:
            numbered = replace(request, receipt_slot=receipt.slot)
            answers = triton_io.stream(TEXT_DECODER, decode_to_tensors(numbered), taken=receipt.note)
        try:
            for tensors in answers:
                event = event_from_tensors(tensors)
                if isinstance(event, Failed):
                    raise event.error
                yield event
        except BaseException:
            self.cancel(request.tag)
            raise
        finally:
            answers.close()
            if receipt is not None:
                receipt.give_back()

    def cancel(self, tag: str) -> None:
        for _ in triton_io.stream(TEXT_DECODER, cancel_to_tensors(tag)):
            pass

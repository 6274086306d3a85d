"""Triton's side of the two encoder models: one answer to each request."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from autoglm_backend import triton_io
from autoglm_backend.doorways import start
from autoglm_backend.doorways.encoder_memory import EncoderMemory
from autoglm_backend.encoders.speech import SpeechService
from autoglm_backend.encoders.vision import VisionService
from autoglm_protocol.errors import AutoglmError, InternalError
from autoglm_protocol.tensors import SPEECH_ENCODER, VISION_ENCODER, ModelContract, Tensors

_log = logging.getLogger(__name__)


class EncoderDoorway:
    def __init__(
        self, contract: ModelContract, encode: Callable[[Tensors], Tensors], close: Callable[[], None]
    ) -> None:
        self._contract = contract
        self._encode = encode
        self._close = close

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def finalize(self) -> None:
        self._close()

    def _answer(self, request: Any) -> Any:
        try:
            outputs = self._encode(triton_io.read_inputs(request, self._contract))
        except AutoglmError as error:
            return triton_io.to_error_response(error)
        except Exception:
            _log.exception("%s failed", self._contract.model)
            return triton_io.to_error_response(InternalError("the encoder failed on this request"))
        return triton_io.to_response(outputs)


def _close(service: VisionService | SpeechService, memory: EncoderMemory) -> None:
    service.close()
    memory.close()


def open_vision(args: Mapping[str, str]) -> EncoderDoorway:
    with start.clear_start_errors():
        arguments = triton_io.ModelArguments.from_triton(args)
        profile, memory = start.profile(arguments), EncoderMemory(arguments.name)
        service = VisionService.from_checkpoint(
            start.checkpoint_dir(arguments),
            start.device(arguments),
            dtype=profile.dtype,
            idle_s=profile.offload_encoders_s,
            observe=memory.observe,
            progress=start.loading_progress(arguments),
        )

        def encode(tensors: Tensors) -> Tensors:
            return {"embeddings": service.encode(tensors["patches"], tensors["grids"])}

        return EncoderDoorway(VISION_ENCODER, encode, partial(_close, service, memory))


def open_speech(args: Mapping[str, str]) -> EncoderDoorway:
    with start.clear_start_errors():
        arguments = triton_io.ModelArguments.from_triton(args)
        profile, memory = start.profile(arguments), EncoderMemory(arguments.name)
        service = SpeechService.from_checkpoint(
            start.checkpoint_dir(arguments),
            start.device(arguments),
            dtype=profile.dtype,
            idle_s=profile.offload_encoders_s,
            observe=memory.observe,
            progress=start.loading_progress(arguments),
        )

        def encode(tensors: Tensors) -> Tensors:
            heard = service.listen(tensors["mel"])
            return {"embeddings": heard.embeddings_AD, "token_ids": heard.token_ids}

        return EncoderDoorway(SPEECH_ENCODER, encode, partial(_close, service, memory))

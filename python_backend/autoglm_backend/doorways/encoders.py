"""Triton's side of the two encoder models: one answer to each request."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoglm_backend import triton_io
from autoglm_backend.doorways import start
from autoglm_backend.encoders.speech import SpeechService
from autoglm_backend.encoders.vision import VisionService
from autoglm_protocol.errors import AutoglmError, InternalError
from autoglm_protocol.tensors import SPEECH_ENCODER, VISION_ENCODER, ModelContract, Tensors

_log = logging.getLogger(__name__)


class EncoderDoorway:
    def __init__(self, contract: ModelContract, encode: Callable[[Tensors], NDArray[np.float32]]) -> None:
        self._contract = contract
        self._encode = encode

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            embeddings = self._encode(triton_io.read_inputs(request, self._contract))
        except AutoglmError as error:
            return triton_io.to_error_response(error)
        except Exception:
            _log.exception("%s failed", self._contract.model)
            return triton_io.to_error_response(InternalError("the encoder failed on this request"))
        return triton_io.to_response({"embeddings": embeddings})


def open_vision(args: Mapping[str, str]) -> EncoderDoorway:
    with start.clear_start_errors():
        arguments = triton_io.ModelArguments.from_triton(args)
        service = VisionService.from_checkpoint(start.checkpoint_dir(arguments), start.device(arguments))
        return EncoderDoorway(VISION_ENCODER, lambda tensors: service.encode(tensors["patches"], tensors["grids"]))


def open_speech(args: Mapping[str, str]) -> EncoderDoorway:
    with start.clear_start_errors():
        arguments = triton_io.ModelArguments.from_triton(args)
        service = SpeechService.from_checkpoint(start.checkpoint_dir(arguments), start.device(arguments))
        return EncoderDoorway(SPEECH_ENCODER, lambda tensors: service.encode(tensors["mel"]))

"""Every Triton tensor's name, type and shape, once. `config.pbtxt` is checked against this file by a contract test.

Dims follow Triton: -1 is any length, and no model has a batch dimension (each batches on its own terms: the decoder
continuously, the encoders by laying pictures end to end).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from autoglm_protocol.errors import InvalidRequestError

Array = np.ndarray[Any, Any]
"""A tensor whose type and shape `TensorSpec` says."""
Tensors = dict[str, Array]

_NUMPY = {"BYTES": np.object_, "INT32": np.int32, "INT64": np.int64, "FP32": np.float32}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    name: str
    dtype: str
    """KServe's word: BYTES, INT32, FP32."""
    dims: tuple[int, ...]
    optional: bool = False
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelContract:
    model: str
    decoupled: bool
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def check_inputs(self, tensors: Mapping[str, Array]) -> None:
        """Raise InvalidRequestError naming the tensor that is missing, or has a wrong type or shape."""
        for spec in self.inputs:
            tensor = tensors.get(spec.name)
            if tensor is None:
                if not spec.optional:
                    raise InvalidRequestError(f"input tensor {spec.name} is missing", param=spec.name)
                continue
            if spec.dtype != "BYTES" and tensor.dtype != _NUMPY[spec.dtype]:
                raise InvalidRequestError(
                    f"input tensor {spec.name} has type {tensor.dtype}, expected {spec.dtype}", param=spec.name
                )
            fits = len(tensor.shape) == len(spec.dims) and all(
                d in (-1, s) for d, s in zip(spec.dims, tensor.shape, strict=True)
            )
            if not fits:
                raise InvalidRequestError(
                    f"input tensor {spec.name} has shape {list(tensor.shape)}, expected {list(spec.dims)}",
                    param=spec.name,
                )


_EVENT_OUTPUTS = (
    TensorSpec(name="text", dtype="BYTES", dims=(1,), meaning="Text since the last message, valid UTF-8, may be empty"),
    TensorSpec(name="token_ids", dtype="INT32", dims=(-1,), meaning="Every token since the last message"),
    TensorSpec(
        name="event",
        dtype="BYTES",
        dims=(1,),
        meaning='JSON: {"type": "started" | "delta" | "choice_finished" | "finished" | "cancelled", ...}; exactly one '
        "message of a stream has a terminal type (finished, cancelled); a failure is a Triton error instead, in "
        'text_decoder after other messages "failed" with the error\'s text',
    ),
)

AUTOGLM_PHONE = ModelContract(
    model="autoglm_phone",
    decoupled=True,
    inputs=(
        TensorSpec(
            name="messages",
            dtype="BYTES",
            dims=(1,),
            meaning="JSON list of chat messages; content is a string or a list of parts "
            '{"type": "text", "text": ...}, {"type": "image", "index": i}, {"type": "audio", "index": i, "format": ...}'
            "; without parts of media type, images and then audios are put in front of the last user message",
        ),
        TensorSpec(name="images", dtype="BYTES", dims=(-1,), optional=True, meaning="PNG, JPEG or WebP files"),
        TensorSpec(name="audios", dtype="BYTES", dims=(-1,), optional=True, meaning="WAV or MP3 files"),
        TensorSpec(
            name="sampling",
            dtype="BYTES",
            dims=(1,),
            optional=True,
            meaning="JSON object of sampling parameters (autoglm_protocol.sampling.SamplingParams)",
        ),
        TensorSpec(
            name="options",
            dtype="BYTES",
            dims=(1,),
            optional=True,
            meaning="JSON object of options (autoglm_protocol.chat.ChatOptions), such as depth",
        ),
        TensorSpec(
            name="task",
            dtype="BYTES",
            dims=(1,),
            optional=True,
            meaning='JSON: {"kind": "generate"} (the default), {"kind": "tokenize"} with "text" for a text alone '
            "(add_special_tokens, return_token_strs), "
            '{"kind": "detokenize", "token_ids": [...]} or {"kind": "transcribe"}; all but the first answer at once',
        ),
    ),
    outputs=_EVENT_OUTPUTS,
)

VISION_ENCODER = ModelContract(
    model="vision_encoder",
    decoupled=False,
    inputs=(
        TensorSpec(
            name="patches",
            dtype="FP32",
            dims=(-1, -1),
            meaning="Normalised pixels [patches, channels * 2 * 14 * 14] in 2x2 merge order, pictures end to end",
        ),
        TensorSpec(name="grids", dtype="INT32", dims=(-1, 2), meaning="Rows and columns of each picture in patches"),
    ),
    outputs=(
        TensorSpec(
            name="embeddings", dtype="FP32", dims=(-1, -1), meaning="[patches / 4, hidden], pictures end to end"
        ),
    ),
)

EMPTY_SLOT = -1
"""In `token_ids` of the speech encoder: a slot in which nothing was heard."""

SPEECH_ENCODER = ModelContract(
    model="speech_encoder",
    decoupled=False,
    inputs=(
        TensorSpec(name="mel", dtype="FP32", dims=(-1, -1), meaning="Log-mel [frames of 10 ms, mel bands] of one clip"),
    ),
    outputs=(
        TensorSpec(name="embeddings", dtype="FP32", dims=(-1, -1), meaning="[speech tokens, hidden]"),
        TensorSpec(
            name="token_ids",
            dtype="INT32",
            dims=(-1,),
            meaning="The decoder's text tokens that were heard, in order; EMPTY_SLOT (-1) where a slot holds none, "
            "and everywhere from an encoder that spells no text",
        ),
    ),
)

TEXT_DECODER = ModelContract(
    model="text_decoder",
    decoupled=True,
    inputs=(
        TensorSpec(name="tag", dtype="BYTES", dims=(1,), meaning="The caller's name of this request, for cancelling"),
        TensorSpec(
            name="cancel",
            dtype="BYTES",
            dims=(1,),
            optional=True,
            meaning="Present: drop the request of that tag; every other input is ignored, the answer is empty",
        ),
        TensorSpec(
            name="profile",
            dtype="BYTES",
            dims=(1,),
            optional=True,
            meaning='JSON {"seconds": ..., "steps": ...}, present: profile the engine until one of them is over; every '
            'other input is ignored, the answer is one event {"type": "profile", "trace": ...}, base64 of a gzipped '
            "Chrome trace",
        ),
        TensorSpec(
            name="prompt_ids",
            dtype="INT32",
            dims=(-1,),
            optional=True,
            meaning="Prompt with one placeholder id per image or speech token",
        ),
        TensorSpec(
            name="image_grids",
            dtype="INT32",
            dims=(-1, 2),
            optional=True,
            meaning="Rows and columns in merged tokens of each picture of the prompt, in order",
        ),
        TensorSpec(
            name="embeddings",
            dtype="FP32",
            dims=(-1, -1),
            optional=True,
            meaning="[media tokens of the prompt in order, hidden]; they replace the placeholders' embeddings",
        ),
        TensorSpec(
            name="media_hashes",
            dtype="BYTES",
            dims=(-1,),
            optional=True,
            meaning="Content hash of each media item of the prompt, in order (prefix cache key)",
        ),
        TensorSpec(name="sampling", dtype="BYTES", dims=(1,), optional=True, meaning="As for autoglm_phone"),
        TensorSpec(
            name="plan",
            dtype="BYTES",
            dims=(1,),
            optional=True,
            meaning="JSON of autoglm_protocol.plan.ExecutionPlan; absent: full depth",
        ),
        TensorSpec(name="priority", dtype="INT32", dims=(1,), optional=True, meaning="Lower runs sooner"),
        TensorSpec(
            name="receipt_slot",
            dtype="INT32",
            dims=(1,),
            optional=True,
            meaning="For autoglm_phone alone: where it counts the messages that it took; the next one waits for that",
        ),
    ),
    outputs=_EVENT_OUTPUTS,
)

CONTRACTS = (AUTOGLM_PHONE, VISION_ENCODER, SPEECH_ENCODER, TEXT_DECODER)


def json_tensor(value: Any) -> Array:
    """A JSON document as a BYTES tensor of one element."""
    return bytes_tensor([json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()])


def bytes_tensor(items: Sequence[bytes]) -> Array:
    # np.array([...], dtype=object) would look into a single bytes object; filling an empty array never does.
    tensor: Array = np.empty(len(items), dtype=np.object_)
    tensor[:] = items
    return tensor


def read_json(tensors: Mapping[str, Array], name: str, default: Any) -> Any:
    """The JSON document of a BYTES tensor, `default` when it is absent. Raises InvalidRequestError."""
    tensor = tensors.get(name)
    if tensor is None:
        return default
    try:
        return json.loads(as_bytes(tensor[0]))
    except (ValueError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"input tensor {name} is not valid JSON: {error}", param=name) from error


def read_object(tensors: Mapping[str, Array], name: str) -> dict[str, Any]:
    """The JSON object of a BYTES tensor, an empty one when it is absent. Raises InvalidRequestError."""
    value = read_json(tensors, name, {})
    if not isinstance(value, dict):
        raise InvalidRequestError(f"input tensor {name} must be a JSON object", param=name)
    return cast("dict[str, Any]", value)


def as_bytes(element: Any) -> bytes:
    """An element of a BYTES tensor: Triton hands over bytes, numpy callers may hold str."""
    return element.encode() if isinstance(element, str) else bytes(element)

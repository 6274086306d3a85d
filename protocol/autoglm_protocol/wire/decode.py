"""What the decoder is asked, to Triton tensors and back: tokens to continue, a request to drop, a profile to take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.plan import ExecutionPlan
from autoglm_protocol.profile import ProfileBounds
from autoglm_protocol.sampling import SamplingParams
from autoglm_protocol.tensors import Array, Tensors, as_bytes, bytes_tensor, json_tensor, read_json, read_object

RECEIPT_SLOTS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeRequest:
    """What the decoder needs of a request: ids, where media stand, their embeddings, and how to go on."""

    tag: str
    prompt_ids: Array
    """int32 [T], one placeholder per media token."""
    image_grids: tuple[tuple[int, int], ...] = ()
    """Rows and columns of each picture in merged tokens."""
    embeddings_MD: Array | None = None
    """float32 [media tokens, hidden], None for text only."""
    media_hashes: tuple[bytes, ...] = ()
    sampling: SamplingParams = field(default_factory=SamplingParams)
    plan: ExecutionPlan | None = None
    priority: int = 0
    receipt_slot: int | None = None
    """Where the reader counts the messages that it took (doorways/receipts); None for one that does not."""


def decode_to_tensors(request: DecodeRequest) -> Tensors:
    tensors: Tensors = {
        "tag": bytes_tensor([request.tag.encode()]),
        "prompt_ids": np.ascontiguousarray(request.prompt_ids, dtype=np.int32),
        "sampling": json_tensor(request.sampling.to_json()),
        "priority": np.array([request.priority], dtype=np.int32),
    }
    if request.image_grids:
        tensors["image_grids"] = np.array(request.image_grids, dtype=np.int32)
    if request.embeddings_MD is not None:
        tensors["embeddings"] = np.ascontiguousarray(request.embeddings_MD, dtype=np.float32)
    if request.media_hashes:
        tensors["media_hashes"] = bytes_tensor(request.media_hashes)
    if request.plan is not None:
        tensors["plan"] = json_tensor(request.plan.to_json())
    if request.receipt_slot is not None:
        tensors["receipt_slot"] = np.array([request.receipt_slot], dtype=np.int32)
    return tensors


def decode_from_tensors(tensors: Mapping[str, Array]) -> DecodeRequest:
    """Raises InvalidRequestError naming the tensor."""
    if "prompt_ids" not in tensors:
        raise InvalidRequestError("input tensor prompt_ids is missing", param="prompt_ids")
    raw_plan = read_json(tensors, "plan", None)
    try:
        plan = None if raw_plan is None else ExecutionPlan.from_json(raw_plan)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidRequestError(f"input tensor plan is no execution plan: {error}", param="plan") from error
    grids = tensors.get("image_grids")
    priority, slot = tensors.get("priority"), tensors.get("receipt_slot")
    if slot is not None and not 0 <= slot[0] < RECEIPT_SLOTS:
        raise InvalidRequestError(
            f"input tensor receipt_slot must lie in 0..{RECEIPT_SLOTS - 1}, this is {slot[0]}", param="receipt_slot"
        )
    return DecodeRequest(
        tag=as_bytes(tensors["tag"][0]).decode(),
        prompt_ids=tensors["prompt_ids"],
        image_grids=() if grids is None else tuple((int(r), int(c)) for r, c in grids),
        embeddings_MD=tensors.get("embeddings"),
        media_hashes=tuple(as_bytes(item) for item in tensors.get("media_hashes", ())),
        sampling=SamplingParams.from_json(read_object(tensors, "sampling")),
        plan=plan,
        priority=0 if priority is None else int(priority[0]),
        receipt_slot=None if slot is None else int(slot[0]),
    )


def cancel_to_tensors(tag: str) -> Tensors:
    return {"tag": bytes_tensor([tag.encode()]), "cancel": bytes_tensor([b"1"])}


def profile_to_tensors(bounds: ProfileBounds) -> Tensors:
    return {"tag": bytes_tensor([b"profile"]), "profile": json_tensor(bounds.to_json())}


def profile_from_tensors(tensors: Mapping[str, Array]) -> ProfileBounds:
    """Raises InvalidRequestError naming the field."""
    return ProfileBounds.from_json(read_object(tensors, "profile"))

"""Media that callers gave a name (vLLM's `uuid` on a content part), so that a later turn may send the name alone.

One gateway's memory: behind several gateways, or after a while, a name may be unknown, and the caller sends the medium
again. Names of different API keys never meet.
"""

from __future__ import annotations

from collections import OrderedDict

from autoglm_gateway.draft import MediaRef
from autoglm_protocol.chat import AudioPart, ImagePart
from autoglm_protocol.errors import InvalidRequestError

MAX_UUID_CHARACTERS = 256

_Key = tuple[str | None, str, str]


def check_uuid(uuid: str | None, where: str) -> None:
    """Raises InvalidRequestError naming `where`."""
    if uuid is not None and not 1 <= len(uuid) <= MAX_UUID_CHARACTERS:
        raise InvalidRequestError(f"{where} must have 1 to {MAX_UUID_CHARACTERS} characters", param=where)


class MediaStore:
    """Least recently used media leave when `max_bytes` are exceeded; 0 keeps none."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._parts: OrderedDict[_Key, ImagePart | AudioPart] = OrderedDict()

    def get(self, owner: str | None, ref: MediaRef) -> ImagePart | AudioPart | None:
        key = _key(owner, ref)
        part = self._parts.get(key)
        if part is not None:
            self._parts.move_to_end(key)
        return part

    def put(self, owner: str | None, ref: MediaRef, part: ImagePart | AudioPart) -> None:
        if len(part.data) > self._max_bytes:
            return
        key = _key(owner, ref)
        old = self._parts.pop(key, None)
        self._size_bytes += len(part.data) - (0 if old is None else len(old.data))
        self._parts[key] = part
        while self._size_bytes > self._max_bytes:
            self._size_bytes -= len(self._parts.popitem(last=False)[1].data)


def _key(owner: str | None, ref: MediaRef) -> _Key:
    assert ref.uuid is not None
    return owner, ref.kind.value, ref.uuid

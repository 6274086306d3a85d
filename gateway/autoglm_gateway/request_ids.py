"""The two names of a request: the one that the caller sees, and the one that no other request has."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass

_VALID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestIds:
    request_id: str
    """Echoed to the caller and written to the log."""
    unique_id: str
    """For Triton, which cancels by it. Begins with `request_id`."""


def request_ids(given: str | None) -> RequestIds:
    """A caller's own id is taken if it is well-formed; it may come twice, so the unique one gets an ending."""
    own = uuid.uuid4().hex
    if given is None or not _VALID.fullmatch(given):
        return RequestIds(request_id=own, unique_id=own)
    return RequestIds(request_id=given, unique_id=f"{given}.{own[:12]}")

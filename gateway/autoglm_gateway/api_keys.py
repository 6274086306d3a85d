"""API keys from a file that holds only their SHA-256 and is read again when it changes.

    {"keys": [{"name": "ci", "sha256": "<hex>", "requests_per_min": 60, "tokens_per_min": 100000, "max_concurrent": 4}]}

`printf %s "$KEY" | sha256sum` makes the hash. A limit that is left out does not limit.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from autoglm_gateway.json_fields import JsonFields
from autoglm_protocol.errors import AuthenticationError, InvalidRequestError

_log = logging.getLogger(__name__)
_LOOK_EVERY_S = 1.0
_SCHEME = "bearer "


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who a key belongs to, and what it allows. None: no limit."""

    name: str
    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    max_concurrent: int | None = None


class ApiKeys:
    """A file that is missing or wrong at the start is a ValueError; one that becomes so later is logged, unused."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version = self._stat()
        self._callers = read_key_file(path)
        self._looked_s = time.monotonic()

    def authenticate(self, authorization: str | None) -> Caller:
        """The owner of a `Bearer` header's key. Raises AuthenticationError."""
        self._reload()
        if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
            raise AuthenticationError("an API key is required: Authorization: Bearer KEY", code="missing_api_key")
        given = hashlib.sha256(authorization[len(_SCHEME) :].strip().encode()).digest()
        found = None
        # Every key is compared, so that the time says nothing of which one came close.
        for digest, caller in self._callers:
            if hmac.compare_digest(digest, given):
                found = caller
        if found is None:
            raise AuthenticationError("the API key is not valid")
        return found

    def _reload(self) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = now_s
        try:
            version = self._stat()
            if version == self._version:
                return
            self._callers = read_key_file(self._path)
            self._version = version
            _log.info("API keys read again", extra={"count": len(self._callers)})
        except ValueError as error:
            _log.error("the changed API key file is not used", extra={"reason": str(error)})

    def _stat(self) -> tuple[int, int, int]:
        try:
            status = os.stat(self._path)
        except OSError as error:
            raise ValueError(f"cannot read the API key file {self._path}: {error.strerror}") from error
        return status.st_mtime_ns, status.st_size, status.st_ino


def read_key_file(path: Path) -> list[tuple[bytes, Caller]]:
    """Digest and owner of each key. Raises ValueError."""
    try:
        fields = JsonFields(orjson.loads(path.read_bytes()), "")
        return [_entry(JsonFields(item, f"keys[{i}]")) for i, item in enumerate(fields.items("keys") or [])]
    except OSError as error:
        raise ValueError(f"cannot read the API key file {path}: {error.strerror}") from error
    except (orjson.JSONDecodeError, InvalidRequestError) as error:
        raise ValueError(f"the API key file {path} is wrong: {error}") from error


def _entry(fields: JsonFields) -> tuple[bytes, Caller]:
    text = fields.required_text("sha256")
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise InvalidRequestError(f"{fields.where('sha256')} is no SHA-256 in hex")
    limits: dict[str, Any] = {
        name: fields.integer(name) for name in ("requests_per_min", "tokens_per_min", "max_concurrent")
    }
    for name, value in limits.items():
        if value is not None and value < 1:
            raise InvalidRequestError(f"{fields.where(name)} is {value}, must be at least 1")
    return digest, Caller(name=fields.required_text("name"), **limits)

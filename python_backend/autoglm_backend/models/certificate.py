"""The certificate of certified exits: which gate thresholds were tested, on what, and what was promised.

Made by calibration (Learn-then-Test, fixed sequence): with probability at least 1 - epsilon over the calibration
requests, the share of requests whose answer differs from full depth in the stated way is at most delta. That holds for
the very files, precision and quantization that were calibrated, so a certificate names all of them and is refused for
any other. It lives in `exits/certificate.json`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from autoglm_backend.models.config import CheckpointError

CERTIFICATE_JSON = "certificate.json"
_FOLDERS = ("", "exits", "speech")
_SUFFIXES = (".safetensors", ".json", ".jinja")
_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    risk: str
    """What counts as a mismatch, in words."""
    delta: float
    """Bound on the risk."""
    epsilon: float
    """Probability that the bound is wrong."""
    num_requests: int
    num_mismatches: int
    max_tokens: int
    """Of an answer that were compared: what comes after them was not tested."""
    dtype: str
    quantization: str
    checkpoint_sha256: str
    thresholds: Mapping[int, float]
    """By exit depth, the least confidence that lets a token leave; an exit that is not named never lets one leave."""
    mean_layers: float
    """Layers per generated token during calibration."""
    made: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Where, when and how: for readers."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "thresholds": {str(d): t for d, t in sorted(self.thresholds.items())}}

    @classmethod
    def from_json(cls, raw: Any, where: str) -> Certificate:
        """Strict: a missing, surplus or senseless field raises CheckpointError naming `where` and the field."""
        if not isinstance(raw, Mapping):
            raise CheckpointError(f"{where}: expected a JSON object")
        known = {f.name for f in fields(cls)}
        for name in sorted(known - raw.keys() - {"made"}):
            raise CheckpointError(f"{where}: {name} is missing")
        for name in sorted(raw.keys() - known):
            raise CheckpointError(f"{where}: {name} is not a field of a certificate")
        for name, is_right, wanted in _FIELDS:
            if name in raw and not is_right(raw[name]):
                raise CheckpointError(f"{where}: {name} is {raw[name]!r}, must be {wanted}")
        return cls(**{**raw, "thresholds": {int(depth): float(t) for depth, t in raw["thresholds"].items()}})


def load_certificate(checkpoint_dir: Path) -> Certificate | None:
    """The checkpoint's certificate, None when it has none. Raises CheckpointError naming file and field."""
    path = checkpoint_dir / "exits" / CERTIFICATE_JSON
    if not path.exists():
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from error
    return Certificate.from_json(raw, str(path))


def check_certificate(certificate: Certificate, checkpoint_dir: Path, *, dtype: str, quantization: str) -> None:
    """Raises CheckpointError unless the certificate was made for these weights at this precision.

    dtype: as torch names it ("float32"); quantization: "none" or the scheme's name.
    """
    path = checkpoint_dir / "exits" / CERTIFICATE_JSON
    for name, certified, served in (
        ("dtype", certificate.dtype, dtype),
        ("quantization", certificate.quantization, quantization),
    ):
        if certified != served:
            raise CheckpointError(f"{path}: {name} was {certified} when it was made, this server runs {served}")
    if certificate.checkpoint_sha256 != checkpoint_sha256(checkpoint_dir):
        raise CheckpointError(
            f"{path}: checkpoint_sha256 is of other files than those in {checkpoint_dir}: weights, exits, gates, "
            "router, tokenizer, template or a configuration were changed after it was made"
        )


def checkpoint_sha256(checkpoint_dir: Path, staged: Path | None = None) -> str:
    """SHA-256 over names and bytes of all that decides an answer: every `*.safetensors`, `*.json` and `*.jinja` of the
    directory, of its `exits/` and of its `speech/`, but for the certificate itself.

    staged: laid out like the checkpoint; its files count in the place of those of the same names. Raises OSError.
    """
    files: dict[str, Path] = {}
    for root in (checkpoint_dir, staged):
        if root is None:
            continue
        for path in (path for folder in _FOLDERS for path in (root / folder).glob("*")):
            if path.suffix in _SUFFIXES and path.is_file():
                files[path.relative_to(root).as_posix()] = path
    files.pop(f"exits/{CERTIFICATE_JSON}", None)
    digest = hashlib.sha256()
    for text, path in sorted(files.items()):
        name = text.encode()
        # Lengths keep one file's end from being read as another's beginning.
        digest.update(len(name).to_bytes(8, "little") + name + path.stat().st_size.to_bytes(8, "little"))
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 < value < 1


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_thresholds(value: Any) -> bool:
    # A threshold above 1 is one that no confidence reaches: the exit is closed.
    return isinstance(value, Mapping) and all(
        isinstance(depth, str) and depth.isdigit() and _is_number(t) and t >= 0 for depth, t in value.items()
    )


_FIELDS = (
    ("risk", _is_text, "a sentence"),
    ("delta", _is_share, "a number between 0 and 1"),
    ("epsilon", _is_share, "a number between 0 and 1"),
    ("num_requests", _is_count, "a whole number from 0"),
    ("num_mismatches", _is_count, "a whole number from 0"),
    ("max_tokens", _is_count, "a whole number from 0"),
    ("dtype", _is_text, "a precision's name"),
    ("quantization", _is_text, '"none" or a scheme\'s name'),
    ("checkpoint_sha256", _is_text, "64 hexadecimal digits"),
    ("thresholds", _is_thresholds, "an object from exit depth to a confidence from 0"),
    ("mean_layers", _is_number, "a number"),
    ("made", lambda value: isinstance(value, Mapping), "an object"),
)

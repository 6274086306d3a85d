"""A checkpoint's tokenizer: text to ids where nobody can type a special token, and ids to the bytes a caller may see.

Byte-level BPE in the `tokenizers` library's `tokenizer.json` (GLM's kind) is the only one served.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from autoglm_backend.models.config import CheckpointError

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedToken:
    id: int
    content: str
    special: bool
    """Special tokens come from the chat template only; others (`<think>`, `<answer>`) are parsed everywhere."""


class Tokenizer:
    """`added` by content. The vocabulary's size may be below the model's, which is padded."""

    def __init__(
        self, plain: tokenizers.Tokenizer, added: Sequence[AddedToken], around: tuple[Ids, Ids] = ((), ())
    ) -> None:
        # plain: the tokenizer without any added token, so that their text is ordinary text to it.
        self.added = {token.content: token for token in added}
        self._around = around
        self._plain = plain
        # longest first: one token may begin with another
        contents = sorted(self.added, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, contents))) if contents else None

    @cached_property
    def special_contents(self) -> tuple[str, ...]:
        return tuple(content for content, token in self.added.items() if token.special)

    def id_of(self, content: str) -> int | None:
        """The id of an added token, None when this tokenizer has none of that text."""
        token = self.added.get(content)
        return None if token is None else token.id

    def encode(self, text: str, *, ignored: str = "") -> list[int]:
        """Ids of a rendered prompt. The character `ignored` breaks an added token's text, and is dropped."""
        ids: list[int] = []
        start = 0
        for match in self._pattern.finditer(text) if self._pattern else ():
            ids += self._encode_plain(text[start : match.start()], ignored)
            ids.append(self.added[match.group()].id)
            start = match.end()
        return ids + self._encode_plain(text[start:], ignored)

    def with_special(self, ids: Sequence[int]) -> tuple[int, ...]:
        """With what the tokenizer's own post-processor puts around a text. Chat templates spell that themselves."""
        before, after = self._around
        return (*before, *ids, *after)

    def piece(self, token: int) -> str:
        """A token as the vocabulary spells it (a space is `Ġ`), empty for the model's padding ids."""
        return self._contents.get(token) or self._plain.id_to_token(token) or ""

    @cached_property
    def _contents(self) -> dict[int, str]:
        return {token.id: token.content for token in self.added.values()}

    def _encode_plain(self, text: str, ignored: str) -> list[int]:
        if ignored:
            text = text.replace(ignored, "")
        return self._plain.encode(text, add_special_tokens=False).ids if text else []

    def token_table(self, hidden_ids: Sequence[int] = ()) -> TokenTable:
        """Bytes of every token; special tokens and `hidden_ids` (the model's end tokens) are invisible."""
        pieces: dict[int, str] = {
            index: piece for piece, index in self._plain.get_vocab(with_added_tokens=False).items()
        }
        pieces |= {token.id: token.content for token in self.added.values()}
        table = [b""] * (max(pieces, default=-1) + 1)
        for index, piece in pieces.items():
            table[index] = _piece_bytes(piece)
        hidden = {token.id for token in self.added.values() if token.special} | set(hidden_ids)
        return TokenTable(raw=tuple(table), hidden=frozenset(hidden))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTable:
    raw: tuple[bytes, ...]
    """Bytes by token id."""
    hidden: frozenset[int]

    def raw_bytes(self, token: int) -> bytes:
        """A token's own bytes, hidden or not; none for the padding ids that a model has beyond its tokenizer."""
        return self.raw[token] if token < len(self.raw) else b""

    def visible_bytes(self, token: int) -> bytes:
        """What a caller sees of a token: nothing of the hidden ones."""
        return b"" if token in self.hidden else self.raw_bytes(token)


def load_tokenizer(checkpoint_dir: Path) -> Tokenizer:
    """Read `tokenizer.json`. Raises CheckpointError."""
    path, raw = _read(checkpoint_dir)
    if not _is_byte_level(raw.get("decoder")):
        raise CheckpointError(f"{path}: only byte-level tokenizers are supported, the decoder is {raw.get('decoder')}")
    added = _added_tokens(raw, path)
    # post_processor templates name added tokens, which plain does not know
    plain = {**raw, "added_tokens": [], "post_processor": None}
    try:
        around = _ids_around(raw.get("post_processor"))
        return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(plain)), added, around)
    except Exception as error:  # the Rust library raises bare Exception
        raise CheckpointError(f"{path}: {error}") from error


def load_added_tokens(checkpoint_dir: Path) -> list[AddedToken]:
    """The added tokens of `tokenizer.json`, whatever kind of tokenizer it is. Raises CheckpointError."""
    path, raw = _read(checkpoint_dir)
    return _added_tokens(raw, path)


def _read(checkpoint_dir: Path) -> tuple[Path, dict[str, Any]]:
    path = checkpoint_dir / "tokenizer.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path}: not a tokenizers file")
    return path, raw


def _added_tokens(raw: dict[str, Any], path: Path) -> list[AddedToken]:
    try:
        return [_added_token(token, path) for token in raw.get("added_tokens", [])]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a tokenizers file ({error})") from error


def _added_token(raw: dict[str, Any], path: Path) -> AddedToken:
    # a one-character token could not be hidden in text that callers send
    if any(raw.get(flag) for flag in ("lstrip", "rstrip", "single_word")) or len(raw["content"]) < 2:
        raise CheckpointError(
            f"{path}: added token {raw['content']!r} strips its surroundings or is one character long"
        )
    return AddedToken(id=raw["id"], content=raw["content"], special=raw["special"])


def _ids_around(processor: Any) -> tuple[Ids, Ids]:
    """Ids that a TemplateProcessing puts before and after a single text; alone, or in a sequence of processors."""
    if not isinstance(processor, dict):
        return (), ()
    if processor.get("type") == "Sequence":
        found = [_ids_around(part) for part in processor["processors"]]
        return next((around for around in found if any(around)), ((), ()))
    if processor.get("type") != "TemplateProcessing":
        return (), ()
    before: list[int] = []
    after: list[int] = []
    side = before
    for part in processor["single"]:
        if "SpecialToken" in part:
            side += processor["special_tokens"][part["SpecialToken"]["id"]]["ids"]
        else:
            side = after
    return tuple(before), tuple(after)


def _is_byte_level(decoder: Any) -> bool:
    if not isinstance(decoder, dict):
        return False
    if decoder.get("type") == "Sequence":
        return any(_is_byte_level(part) for part in decoder["decoders"])
    return decoder.get("type") == "ByteLevel"


def _byte_characters() -> dict[str, int]:
    """Byte-level BPE's alphabet: printable bytes stand for themselves, the others for characters from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


_BYTES = _byte_characters()


def _piece_bytes(piece: str) -> bytes:
    # as the library's decoder does: a piece with any character outside the alphabet is plain text
    if all(character in _BYTES for character in piece):
        return bytes(_BYTES[character] for character in piece)
    return piece.encode()

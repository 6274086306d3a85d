"""A file of prompts, one JSON object a line, as rows that a checkpoint can answer.

A line is {"prompt": "text"} or {"messages": [...]} in OpenAI's shape: `content` is a string or a list of parts
{"type": "text", "text"}, {"type": "image_url", "image_url": {"url"}} with a file's path (from the prompt file's folder)
or a data: URL, or {"type": "input_audio", "input_audio": {"data": base64, "format"}}.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoglm_backend.preprocess.audio import decode_audio, log_mel
from autoglm_backend.preprocess.chat_template import AUDIO_TOKEN, ChatTemplate, load_chat_template
from autoglm_backend.preprocess.image import preprocess_image
from autoglm_backend.preprocess.picture_file import decode_picture
from autoglm_protocol.chat import AudioPart, ChatOptions, ImagePart, Message, Part, Role, TextPart
from autoglm_protocol.errors import AutoglmError
from autoglm_training.exits.decoding import Prompt
from autoglm_training.loading import LoadedCheckpoint
from autoglm_training.samples import Row, add_picture, add_tokens

DATA_URL = "data:"
KINDS = {str: "a text", list: "a list", dict: "an object", type(None): "null", bool: "true or false"}


class DataError(ValueError):
    """Lines that cannot be used; the message names file and line number of each."""


def read_prompts(
    path: Path, loaded: LoadedCheckpoint, *, skip_bad: bool, say: Callable[[str], None] = print
) -> list[Prompt]:
    """Every prompt of the file. skip_bad: leave unreadable lines out, each named through `say`.

    Raises:
        DataError: unreadable lines that are not to be skipped, or none that is readable.
        OSError: the file itself cannot be read.
    """
    encoder = PromptEncoder(loaded, path.parent)
    prompts: list[Prompt] = []
    bad: list[str] = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            prompts.append(encoder.encode(messages_of(_json(line), path.parent)))
        # shape and media are ValueErrors, what the server would refuse too is its own error
        except (ValueError, AutoglmError) as error:
            bad.append(f"{path}:{number}: {error}")
        except OSError as error:
            bad.append(f"{path}:{number}: {error.filename}: {error.strerror}")
    if bad and not skip_bad:
        raise DataError("\n".join(bad))
    for complaint in bad:
        say(f"skipped {complaint}")
    if not prompts:
        raise DataError(f"{path}: no prompt")
    return prompts


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error


def messages_of(line: Any, folder: Path) -> list[Message]:
    """The conversation of one line. Raises ValueError saying what is wrong, OSError for a picture's file."""
    if not isinstance(line, dict) or ("prompt" in line) == ("messages" in line):
        raise ValueError('expected an object with either "prompt" or "messages"')
    if "prompt" in line:
        prompt = _get(line, "prompt", str)
        if not prompt:
            raise ValueError('"prompt" is empty')
        return [Message(role=Role.USER, parts=(TextPart(text=prompt),))]
    messages = _get(line, "messages", list)
    if not messages:
        raise ValueError('"messages" must hold at least one message')
    return [_message(raw, folder) for raw in messages]


def _message(raw: Any, folder: Path) -> Message:
    content, role = _get(raw, "content", str, list), _get(raw, "role", str)
    if role not in {known.value for known in Role}:
        raise ValueError(f'"role" is {role!r}, must be one of {", ".join(known.value for known in Role)}')
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return Message(role=Role(role), parts=tuple(_part(part, folder) for part in parts))


def _part(part: Any, folder: Path) -> Part:
    kind = _get(part, "type", str)
    if kind == "text":
        return TextPart(text=_get(part, "text", str))
    if kind == "image_url":
        return ImagePart(data=_file(_get(_get(part, "image_url", dict), "url", str), folder))
    if kind == "input_audio":
        sound = _get(part, "input_audio", dict)
        declared = _get(sound, "format", str) if "format" in sound else None
        return AudioPart(data=_base64(_get(sound, "data", str), "data"), format=declared)
    raise ValueError(f'"type" is {kind!r}, known are text, image_url and input_audio')


def _get(raw: Any, name: str, *kinds: type) -> Any:
    """A field of an object, of one of these kinds. Raises ValueError naming it."""
    if not isinstance(raw, dict):
        raise ValueError(f'expected an object with "{name}", found {_kind(raw)}')
    if name not in raw:
        raise ValueError(f'"{name}" is missing')
    if not isinstance(raw[name], kinds):
        wanted = " or ".join(KINDS[kind] for kind in kinds)
        raise ValueError(f'"{name}" is {_kind(raw[name])}, must be {wanted}')
    return raw[name]


def _kind(value: Any) -> str:
    return KINDS.get(type(value), "a number")


def _file(url: str, folder: Path) -> bytes:
    if url.startswith(DATA_URL):
        return _base64(url.partition(",")[2], "url")
    if "://" in url:
        raise ValueError(f"{url}: pictures are read from files and data: URLs, not from the network")
    return (folder / url).read_bytes()


def _base64(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError(f'"{name}" is not base64 ({error})') from error


class PromptEncoder:
    """Conversations to rows, through the checkpoint's own template, tokenizer and encoders."""

    def __init__(self, loaded: LoadedCheckpoint, folder: Path) -> None:
        self._loaded = loaded
        self._template: ChatTemplate = load_chat_template(loaded.directory, loaded.config)
        self._audio_id = self._template.tokenizer.id_of(AUDIO_TOKEN)
        self._folder = folder

    @torch.no_grad()
    def encode(self, messages: list[Message]) -> Prompt:
        """One prompt. Raises InvalidRequestError for what cannot be rendered, ValueError for media."""
        loaded = self._loaded
        parts = [part for message in messages for part in message.parts]
        pictures = [
            preprocess_image(decode_picture(part.data).convert("RGB"), loaded.image_config)
            for part in parts
            if isinstance(part, ImagePart)
        ]
        sounds = [self._heard(part) for part in parts if isinstance(part, AudioPart)]
        encoded = self._template.encode(
            messages,
            ChatOptions(),
            image_tokens=[picture.num_tokens for picture in pictures],
            audio_tokens=[len(sound) for sound in sounds],
            context_tokens=loaded.config.text.max_positions,
        )
        image_id, merge = loaded.config.image_token_id, loaded.image_config.merge_size
        grids = iter([(p.grid[0] // merge, p.grid[1] // merge) for p in pictures])
        row, at = Row(), 0
        for start, length in encoded.image_spans:
            add_tokens(row, encoded.ids[at:start].tolist())
            add_picture(row, image_id, next(grids))
            at = start + length
        add_tokens(row, encoded.ids[at:].tolist())
        device, dtype = loaded.decoder.norm.weight.device, loaded.decoder.norm.weight.dtype
        media: list[tuple[int, Tensor]] = []
        if pictures:
            patches = torch.from_numpy(np.concatenate([p.patches_PK for p in pictures])).to(device, dtype)
            media.append((image_id, loaded.vision(patches, [p.grid for p in pictures])))
        if sounds and self._audio_id is not None:
            media.append((self._audio_id, torch.cat(sounds).to(device, dtype)))
        return Prompt(row=row, media=tuple(media))

    def _heard(self, part: AudioPart) -> Tensor:
        speech = self._loaded.speech
        if speech is None:
            raise ValueError("this checkpoint has no speech encoder, so it takes no audio")
        mel = log_mel(decode_audio(part.data, declared_format=part.format), speech.config.num_mels)
        return speech(torch.from_numpy(mel)[None])[0]


def split_prompts(prompts: Iterable[Prompt], shares: tuple[float, ...], rng: random.Random) -> tuple[list[Prompt], ...]:
    """Disjoint parts in random order, of about these shares of the whole; the last part takes what is left."""
    shuffled = list(prompts)
    rng.shuffle(shuffled)
    parts: list[list[Prompt]] = []
    start = 0
    for share in shares[:-1]:
        end = start + round(share * len(shuffled))
        parts.append(shuffled[start:end])
        start = end
    return (*parts, shuffled[start:])

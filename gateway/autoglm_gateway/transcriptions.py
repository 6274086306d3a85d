"""/v1/audio/transcriptions: a sound file to the words that the speech encoder heard in it.

The encoder spells text pieces without times, so formats that promise times are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoglm_gateway import sse
from autoglm_gateway.draft import ChatDraft, DraftMessage, MediaKind, MediaRef
from autoglm_gateway.multipart import Form
from autoglm_gateway.openai_chat import error_body
from autoglm_protocol.chat import Role, Task, TaskKind
from autoglm_protocol.errors import AutoglmError, InvalidRequestError, PayloadTooLargeError
from autoglm_protocol.events import Completion, Finished, Started, StreamEvent, TokenDelta, Usage

Json = dict[str, Any]

MAX_FILE_BYTES = 25 << 20
"""OpenAI's limit."""
_HINTS = ("language", "languages[]", "languages", "chunking_strategy")
"""Accepted without effect: the encoder hears English and Chinese alike, and a file in one piece."""
_UNSUPPORTED = (
    "prompt",
    "timestamp_granularities",
    "include",
    "keywords",
    "known_speaker_names",
    "known_speaker_references",
)
"""What a caller would miss in the answer. Lists come with [] behind the name."""
_FORMATS = ("json", "text")
_TRUE, _FALSE = ("true", "1"), ("false", "0", "")


def parse_transcription(form: Form) -> tuple[ChatDraft, str]:
    """The request, and the response format. Raises InvalidRequestError naming the field."""
    texts = form.texts
    if not texts.get("model"):
        raise InvalidRequestError("model is missing", code="missing_required_parameter", param="model")
    data = form.files.get("file")
    if data is None:
        raise InvalidRequestError("file is missing", code="missing_required_parameter", param="file")
    if len(data) > MAX_FILE_BYTES:
        raise PayloadTooLargeError(f"file holds {len(data)} bytes, at most {MAX_FILE_BYTES} are allowed", param="file")
    sound = MediaRef(kind=MediaKind.AUDIO, data=data, param="file")
    draft = ChatDraft(
        model=texts["model"],
        messages=(DraftMessage(role=Role.USER, parts=(sound,)),),
        task=Task(kind=TaskKind.TRANSCRIBE),
        stream=_flag(texts, "stream"),
        ignored_fields=tuple(sorted(_unknown(texts, form.files))),
    )
    return draft, _response_format(texts)


def _unknown(texts: Mapping[str, str], files: Mapping[str, bytes]) -> set[str]:
    for name in (spelled for plain in _UNSUPPORTED for spelled in (plain, f"{plain}[]")):
        if texts.get(name):
            raise InvalidRequestError(
                f"{name} is not supported by this server", code="unsupported_parameter", param=name
            )
    if not _is_zero(texts.get("temperature") or "0"):
        raise InvalidRequestError(
            "temperature must be 0: what was heard is not sampled", code="unsupported_parameter", param="temperature"
        )
    known = {"model", "file", "stream", "response_format", "temperature", *_HINTS}
    return (texts.keys() | files.keys()) - known


def _is_zero(text: str) -> bool:
    try:
        return float(text) == 0
    except ValueError:
        return False


def _response_format(texts: Mapping[str, str]) -> str:
    wanted = texts.get("response_format") or "json"
    if wanted not in _FORMATS:
        raise InvalidRequestError(
            f"response_format is {wanted[:40]!r}, supported are json and text: the speech encoder knows no times",
            code="unsupported_parameter",
            param="response_format",
        )
    return wanted


def _flag(texts: Mapping[str, str], name: str) -> bool:
    value = texts.get(name, "").lower()
    if value not in _TRUE + _FALSE:
        raise InvalidRequestError(f"{name} must be true or false", code="invalid_type", param=name)
    return value in _TRUE


class TranscriptionFormat:
    def __init__(self, response_format: str) -> None:
        self._response_format = response_format

    def whole(self, draft: ChatDraft, completion: Completion) -> Json | str:
        text = completion.choices[0].text
        if self._response_format == "text":
            return text + "\n"
        return {"text": text, "usage": _usage(completion.usage)}

    def stream(self, draft: ChatDraft, started: Started) -> TranscriptEvents:
        return TranscriptEvents()


class TranscriptEvents:
    def __init__(self) -> None:
        self._text = ""

    def first(self) -> bytes:
        return b""

    def of(self, event: StreamEvent) -> bytes:
        if isinstance(event, TokenDelta):
            self._text += event.text
            return sse.encode({"type": "transcript.text.delta", "delta": event.text})
        if isinstance(event, Finished):
            return sse.encode({"type": "transcript.text.done", "text": self._text, "usage": _usage(event.usage)})
        return b""

    def failed(self, error: AutoglmError) -> bytes:
        return sse.encode(error_body(error))

    def end(self) -> bytes:
        return b""


def _usage(usage: Usage) -> Json:
    return {
        "type": "tokens",
        "input_tokens": usage.prompt_tokens,
        "input_token_details": {"audio_tokens": usage.audio_tokens, "text_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }

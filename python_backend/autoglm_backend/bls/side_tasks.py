"""What is asked of the prompt or of a sound without wanting an answer: token ids, text of ids, a transcript.

They take the same request as a chat, so that template, tokenizer and media are those that the chat would see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from autoglm_backend.bls.media import MediaReader, PreparedMedia
from autoglm_backend.bls.stages import Stages
from autoglm_backend.preprocess.chat_template import ChatTemplate
from autoglm_backend.preprocess.tokenizer import TokenTable
from autoglm_protocol.chat import ChatRequest, Task, TaskKind
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.events import Finished, FinishReason, Started, StreamEvent, TokenDelta, Usage

_ANY_LENGTH = 1 << 31
"""Counting is how callers find out that a prompt is too long, so it must not refuse one."""


class SideTasks:
    """Thread-safe."""

    def __init__(
        self, *, template: ChatTemplate, tokens: TokenTable, reader: MediaReader, stages: Stages, context_tokens: int
    ) -> None:
        self._template = template
        self._tokens = tokens
        self._reader = reader
        self._stages = stages
        self._context_tokens = context_tokens

    def answer(
        self, request: ChatRequest, images: Sequence[PreparedMedia], audios: Sequence[PreparedMedia]
    ) -> Iterator[StreamEvent]:
        """Started, one TokenDelta, Finished. Raises InvalidRequestError."""
        if request.task.kind is TaskKind.TOKENIZE:
            return self._prompt_ids(request, images, audios)
        if request.task.kind is TaskKind.DETOKENIZE:
            return self._text(request)
        return self._transcript(request)

    def _prompt_ids(
        self, request: ChatRequest, images: Sequence[PreparedMedia], audios: Sequence[PreparedMedia]
    ) -> Iterator[StreamEvent]:
        """TOKENIZE: the rendered conversation, or `task.text` alone, in which special tokens are read as such."""
        text = request.task.text
        if text is not None:
            ids = tuple(self._template.tokenizer.encode(_checked(text)))
            if request.task.add_special_tokens:
                ids = self._template.tokenizer.with_special(ids)
            return self._delta("", ids, Usage(prompt_tokens=len(ids)), **self._spelled(ids, request.task))
        prompt = self._template.encode(
            request.messages,
            request.options,
            image_tokens=[item.num_tokens for item in images],
            audio_tokens=[item.num_tokens for item in audios],
            context_tokens=_ANY_LENGTH,
        )
        usage = Usage(
            prompt_tokens=len(prompt.ids),
            image_tokens=prompt.num_image_tokens,
            audio_tokens=prompt.num_audio_tokens,
        )
        ids = tuple(prompt.ids.tolist())
        if request.task.add_special_tokens:
            ids = self._template.tokenizer.with_special(ids)
            usage = replace(usage, prompt_tokens=len(ids))
        return self._delta("", ids, usage, **self._spelled(ids, request.task))

    def _text(self, request: ChatRequest) -> Iterator[StreamEvent]:
        """DETOKENIZE: special tokens are shown."""
        ids = request.task.token_ids
        size = len(self._tokens.raw)
        for index, token in enumerate(ids):
            if not 0 <= token < size:
                raise InvalidRequestError(
                    f"tokens[{index}] is {token}, the tokenizer has ids from 0 to {size - 1}", param=f"tokens[{index}]"
                )
        return self._delta(self._decoded(ids), ids, Usage())

    def _transcript(self, request: ChatRequest) -> Iterator[StreamEvent]:
        """TRANSCRIBE: letter case and punctuation are not heard. Raises InvalidRequestError."""
        if not self._reader.hears_text:
            raise InvalidRequestError(_HEARS_NO_TEXT, code="unsupported_endpoint")
        if len(request.audios) != 1:
            raise InvalidRequestError("a transcription takes exactly one sound", param="file")
        mel_FC = self._reader.mel_of(request.audios[0], "file")
        heard = tuple(self._stages.hear(mel_FC).tolist())
        usage = Usage(
            prompt_tokens=self._reader.num_audio_tokens(mel_FC),
            audio_tokens=self._reader.num_audio_tokens(mel_FC),
            completion_tokens=len(heard),
        )
        return self._delta(self._decoded(heard).strip(), heard, usage)

    def _decoded(self, ids: Sequence[int]) -> str:
        return b"".join(map(self._tokens.raw_bytes, ids)).decode("utf-8", "replace")

    def _spelled(self, ids: tuple[int, ...], task: Task) -> dict[str, list[str]]:
        return {"token_strs": [*map(self._template.tokenizer.piece, ids)]} if task.return_token_strs else {}

    def _delta(self, text: str, ids: tuple[int, ...], usage: Usage, **spelled: list[str]) -> Iterator[StreamEvent]:
        facts = {"max_model_len": self._context_tokens}
        yield Started(usage=usage, dynamic_graph=facts)
        yield TokenDelta(text=text, token_ids=ids)
        yield Finished(finish_reason=FinishReason.STOP, usage=usage, dynamic_graph={**facts, **spelled})


_HEARS_NO_TEXT = "this checkpoint's speech encoder writes nothing down; send the sound as input_audio to a chat"


def _checked(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"the text holds half of a surrogate pair: {error.reason}", param="prompt") from error
    return text

"""A chat request from messages to streamed text: preprocess, encode, decode, detokenize.

Knows nothing of Triton: `Stages` are the models it calls. One thread per request walks through `run`; the vision and
the speech encoder work at the same time.
"""

from __future__ import annotations

import threading
import traceback
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from autoglm_backend.bls.answer import Answer
from autoglm_backend.bls.embedding_cache import EmbeddedMedia
from autoglm_backend.bls.media import MediaReader, PreparedMedia
from autoglm_backend.bls.observer import Observer
from autoglm_backend.bls.option_check import check_request
from autoglm_backend.bls.planner import CheckpointFacts, Deployment, RequestFacts, plan
from autoglm_backend.bls.side_tasks import SideTasks
from autoglm_backend.bls.stages import Stages
from autoglm_backend.bls.step_clock import StepClock, timed
from autoglm_backend.preprocess.chat_template import ChatTemplate, EncodedPrompt
from autoglm_backend.preprocess.tokenizer import TokenTable
from autoglm_protocol.chat import AudioPart, ChatRequest, ImagePart, TaskKind
from autoglm_protocol.errors import AutoglmError, InternalError
from autoglm_protocol.events import (
    Cancelled,
    ChoiceFinished,
    Failed,
    Finished,
    FinishReason,
    Started,
    StreamEvent,
    TokenDelta,
    Usage,
)
from autoglm_protocol.plan import SPEECH, VISION, DepthBy, ExecutionPlan
from autoglm_protocol.wire import DecodeRequest


@dataclass(eq=False, slots=True, kw_only=True)
class RequestHandle:
    """What others see of a request in flight: how to cancel it. Thread-safe."""

    tag: str = field(default_factory=lambda: uuid.uuid4().hex)
    """The decoder's name of the request."""
    is_cancelled: threading.Event = field(default_factory=threading.Event)
    is_over: threading.Event = field(default_factory=threading.Event)
    clock: StepClock | None = None
    """Takes the times of the steps; None where nobody asked for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Media:
    """The items of a request in prompt order, the encoders that worked on them, and how many items the cache had."""

    images: tuple[EmbeddedMedia, ...] = ()
    audios: tuple[EmbeddedMedia, ...] = ()
    encoders_run: tuple[str, ...] = ()
    num_cached: int = 0


_Encoded = list[tuple[EmbeddedMedia, bool]]
"""Items with whether the cache had them."""


class Pipeline:
    """Everything a request needs that outlives it. Thread-safe."""

    def __init__(
        self,
        *,
        template: ChatTemplate,
        tokens: TokenTable,
        reader: MediaReader,
        stages: Stages,
        checkpoint: CheckpointFacts,
        deployment: Deployment,
        context_tokens: int,
        executor: Executor,
        observer: Observer,
    ) -> None:
        self._template = template
        self._tokens = tokens
        self._reader = reader
        self._stages = stages
        self._checkpoint = checkpoint
        self._deployment = deployment
        self._context_tokens = context_tokens
        self._executor = executor
        self._observer = observer
        self._side_tasks = SideTasks(
            template=template, tokens=tokens, reader=reader, stages=stages, context_tokens=context_tokens
        )

    def run(self, read: Callable[[], ChatRequest], handle: RequestHandle) -> Iterator[StreamEvent]:
        """The events of one request: exactly one terminal event, the last one, whatever happens. Never raises.

        read: makes the request; what it raises is the request's failure. handle: lets other threads cancel it.
        """
        event: StreamEvent = Cancelled()
        try:
            for event in self._answer(read(), handle):
                yield event
        except AutoglmError as error:
            event = Failed(error=error)
            yield event
        except Exception:
            self._observer.log_failure(f"request {handle.tag} failed:\n{traceback.format_exc()}")
            event = Failed(error=InternalError("the server failed on this request"))
            yield event
        finally:
            handle.is_over.set()
            self._observer.ended(_outcome(event))

    def _answer(self, request: ChatRequest, handle: RequestHandle) -> Iterator[StreamEvent]:
        check_request(request)
        execution = plan(RequestFacts.of(request), self._checkpoint, self._deployment)
        if request.task.kind is not TaskKind.GENERATE:
            is_transcript = request.task.kind is TaskKind.TRANSCRIBE
            yield from self._side_tasks.answer(request, *(((), ()) if is_transcript else self._read_media(request)))
            return
        for line in execution.log_lines(has_images=bool(request.images), has_audio=bool(request.audios)):
            self._observer.log(line)

        with timed(handle.clock, "preprocess") as notes:
            images, audios = self._read_media(request)
            prompt = self._template.encode(
                request.messages,
                request.options,
                image_tokens=[item.num_tokens for item in images],
                audio_tokens=[item.num_tokens for item in audios],
                context_tokens=self._context_tokens,
            )
            notes.attributes["prompt_tokens"] = len(prompt.ids)
        if handle.is_cancelled.is_set():
            yield Cancelled()
            return
        media = self._encode(execution, images, audios, handle.clock)
        if execution.depth_by is not DepthBy.PROBE:
            self._observer.exited_at(execution.depth)
        graph = execution.report(encoders_run=media.encoders_run, embedding_cache_hits=media.num_cached)
        usage = Usage(
            prompt_tokens=len(prompt.ids),
            image_tokens=prompt.num_image_tokens,
            audio_tokens=prompt.num_audio_tokens,
        )
        if handle.is_cancelled.is_set():
            yield Cancelled()
            return
        yield Started(usage=usage, dynamic_graph=graph)
        decode = _decode_request(request, handle, execution, prompt, media, (*images, *audios))
        with timed(handle.clock, "text_decoder") as notes:
            notes.attributes |= {"depth": execution.depth, "exit_mode": execution.exit_mode.value}
            for event in self._decode(request, decode, prompt, usage, graph):
                if isinstance(event, TokenDelta):
                    notes.saw_token()
                elif isinstance(event, Finished | Cancelled):
                    notes.attributes["completion_tokens"] = event.usage.completion_tokens
                yield event

    def _read_media(self, request: ChatRequest) -> tuple[list[PreparedMedia], list[PreparedMedia]]:
        images: list[PreparedMedia] = []
        audios: list[PreparedMedia] = []
        for m, message in enumerate(request.messages):
            for p, part in enumerate(message.parts):
                where = f"messages[{m}].content[{p}]"
                if isinstance(part, ImagePart):
                    images.append(self._reader.read_image(part, request.options, where))
                elif isinstance(part, AudioPart):
                    audios.append(self._reader.read_audio(part, where))
        return images, audios

    def _encode(
        self,
        execution: ExecutionPlan,
        images: list[PreparedMedia],
        audios: list[PreparedMedia],
        clock: StepClock | None,
    ) -> _Media:
        """Run the plan's encoders at the same time: speech in another thread, vision in this one."""
        speech: Future[_Encoded] | None = None
        if execution.run_speech:
            speech = self._executor.submit(self._encode_items, SPEECH, audios, self._reader.encode_silence, clock)
        else:
            self._observer.encoder_skipped(SPEECH)
        seen: _Encoded = []
        try:
            if execution.run_vision:
                seen = self._encode_items(VISION, images, self._reader.encode_blank, clock)
            else:
                self._observer.encoder_skipped(VISION)
        finally:
            # also when vision failed: nobody else waits for this thread's error
            heard = speech.result() if speech is not None else []
        planned = ((VISION, execution.run_vision, seen), (SPEECH, execution.run_speech, heard))
        return _Media(
            images=tuple(media for media, _ in seen),
            audios=tuple(media for media, _ in heard),
            # an encoder in the plan without items ran on nothing (ENABLE_DYNAMIC_GRAPH=False)
            encoders_run=tuple(n for n, run, items in planned if run and not (items and all(hit for _, hit in items))),
            num_cached=sum(hit for _, hit in (*seen, *heard)),
        )

    def _encode_items(
        self,
        encoder: str,
        items: list[PreparedMedia],
        encode_nothing: Callable[[Stages], None],
        clock: StepClock | None,
    ) -> _Encoded:
        results: _Encoded = []
        with timed(clock, f"{encoder}_encoder") as notes:
            if not items:
                encode_nothing(self._stages)
                self._observer.encoder_ran(encoder)
            for item in items:
                media, is_hit = self._reader.embed(item, self._stages)
                if is_hit:
                    self._observer.cache_hit()
                else:
                    self._observer.encoder_ran(encoder)
                results.append((media, is_hit))
            notes.attributes |= {"items": len(items), "from_cache": sum(is_hit for _, is_hit in results)}
        return results

    def _decode(
        self, request: ChatRequest, decode: DecodeRequest, prompt: EncodedPrompt, usage: Usage, graph: dict[str, Any]
    ) -> Iterator[StreamEvent]:
        answer = Answer(
            self._tokens,
            request.sampling,
            think_ids=self._template.think_ids,
            starts_in_thought=prompt.starts_in_thought,
            with_layers=request.options.return_token_layers,
        )
        for event in self._stages.decode(decode):
            if isinstance(event, TokenDelta):
                was_complete = answer.is_complete
                yield from answer.take(event)
                if answer.is_complete and not was_complete:
                    # a stop string: the decoder knows none, and its stream is still read to the end
                    self._stages.cancel(decode.tag)
            elif isinstance(event, ChoiceFinished):
                yield from answer.finish(event.index, event.finish_reason)
            elif isinstance(event, Finished | Cancelled):
                spent = replace(
                    usage,
                    completion_tokens=answer.completion_tokens,
                    reasoning_tokens=answer.reasoning_tokens,
                    cached_tokens=event.usage.cached_tokens,
                )
                report = {**graph, **event.dynamic_graph}
                if decode.plan is not None and decode.plan.depth_by is DepthBy.PROBE:
                    self._observer.exited_at(report["depth"])
                # After a stop string the decoder's stream ends in Cancelled, the answer is complete all the same.
                if isinstance(event, Finished) or answer.is_complete:
                    reason = event.finish_reason if isinstance(event, Finished) else FinishReason.STOP
                    yield from answer.finish_all(reason)
                    yield Finished(finish_reason=answer.reasons[0], usage=spent, dynamic_graph=report)
                else:
                    yield Cancelled(usage=spent, dynamic_graph=report)


def _decode_request(
    request: ChatRequest,
    handle: RequestHandle,
    execution: ExecutionPlan,
    prompt: EncodedPrompt,
    media: _Media,
    prepared: tuple[PreparedMedia, ...],
) -> DecodeRequest:
    in_order = sorted(
        zip((*prompt.image_spans, *prompt.audio_spans), (*media.images, *media.audios), prepared, strict=True),
        key=lambda placed: placed[0],
    )
    for (_, length), item, _ in in_order:
        if len(item.embeddings_MD) != length:
            raise InternalError("an encoder answered with another number of tokens than its item takes")
    return DecodeRequest(
        tag=handle.tag,
        prompt_ids=prompt.ids,
        image_grids=tuple(item.grid for item in media.images if item.grid is not None),
        embeddings_MD=np.concatenate([item.embeddings_MD for _, item, _ in in_order]) if in_order else None,
        media_hashes=tuple(item.key for _, _, item in in_order),
        sampling=request.sampling,
        plan=execution,
        priority=request.options.priority,
    )


def _outcome(event: StreamEvent) -> str:
    if isinstance(event, Finished):
        return "finished"
    if isinstance(event, Failed):
        return "refused" if event.error.http_status < 500 else "failed"
    return "cancelled"

"""Questions as the decoder gets them: templates applied and media encoded by the server's own pipeline, in one process.

No benchmark by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from traffic import Question

from autoglm_backend.bls.embedding_cache import EmbeddingCache
from autoglm_backend.bls.media import MediaReader
from autoglm_backend.bls.pipeline import Pipeline, RequestHandle
from autoglm_backend.bls.planner import Deployment, load_checkpoint_facts
from autoglm_backend.bls.stages import LocalStages
from autoglm_backend.encoders.speech import SpeechService
from autoglm_backend.encoders.vision import VisionService
from autoglm_backend.engine.service import DecoderService
from autoglm_backend.models.config import load_model_config, load_speech_config
from autoglm_backend.preprocess.chat_template import load_chat_template
from autoglm_backend.preprocess.image import load_image_config
from autoglm_protocol.chat import ChatRequest
from autoglm_protocol.events import Failed, Finished, FinishReason, StreamEvent, Usage
from autoglm_protocol.sampling import SamplingParams
from autoglm_protocol.wire import DecodeRequest

MAX_TOKENS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request as the decoder gets it from the pipeline, media encoded."""

    modality: str
    decode: DecodeRequest


class _Preparing(LocalStages):
    """Keeps the decoder's request instead of answering it."""

    kept: DecodeRequest

    def decode(self, request: DecodeRequest) -> Iterator[StreamEvent]:
        self.kept = request
        yield Finished(finish_reason=FinishReason.STOP, usage=Usage())


def prepare(checkpoint: Path, service: DecoderService, questions: Sequence[Question]) -> list[Prepared]:
    """What the server's own pipeline makes of the questions."""
    config = load_model_config(checkpoint)
    facts = load_checkpoint_facts(checkpoint, config.text.num_layers)
    stages = _Preparing(
        VisionService.from_checkpoint(checkpoint, "cpu"), SpeechService.from_checkpoint(checkpoint, "cpu"), service
    )
    template = load_chat_template(checkpoint, config)
    with ThreadPoolExecutor(1) as executor:
        pipeline = Pipeline(
            template=template,
            tokens=template.tokenizer.token_table(config.eos_token_ids),
            reader=MediaReader(
                load_image_config(checkpoint),
                load_speech_config(checkpoint / "speech" / "speech_config.json") if facts.has_speech else None,
                EmbeddingCache(0),
            ),
            stages=stages,
            checkpoint=facts,
            deployment=Deployment(),
            context_tokens=service.context_tokens,
            executor=executor,
            observer=_Silent(),
        )
        prepared: list[Prepared] = []
        for question in questions:
            sampling = SamplingParams(temperature=0.0, max_tokens=MAX_TOKENS)
            chat = ChatRequest(request_id="", model="", messages=(question.message,), sampling=sampling)
            last = list(pipeline.run(lambda chat=chat: chat, RequestHandle()))[-1]
            if isinstance(last, Failed):
                raise last.error
            prepared.append(Prepared(modality=question.modality, decode=stages.kept))
    return prepared


class _Silent:
    """A pipeline's observer that keeps nothing."""

    def log(self, line: str) -> None: ...
    def log_failure(self, line: str) -> None: ...
    def encoder_ran(self, encoder: str) -> None: ...
    def encoder_skipped(self, encoder: str) -> None: ...
    def exited_at(self, depth: int) -> None: ...
    def cache_hit(self) -> None: ...
    def ended(self, outcome: str) -> None: ...

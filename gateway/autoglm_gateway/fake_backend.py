"""A deterministic backend with knobs: the whole gateway without Triton, for load tests, client tests and demos."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Any

from autoglm_gateway.backend import Profile
from autoglm_gateway.option import option
from autoglm_protocol.chat import ChatRequest, TaskKind
from autoglm_protocol.errors import AutoglmError, InternalError, InvalidRequestError, UnavailableError
from autoglm_protocol.events import (
    ChoiceFinished,
    Failed,
    Finished,
    FinishReason,
    Started,
    StreamEvent,
    TokenDelta,
    TokenLogprob,
    Usage,
)
from autoglm_protocol.plan import SPEECH, VISION, ExecutionPlan, ExitMode, check_attention_window, parse_depth
from autoglm_protocol.profile import ProfileBounds

_NUM_LAYERS = 24
_EXITS = (6, 12, 18)
_KV_BYTES_PER_LAYER_TOKEN = 1024
_TOKENS_PER_IMAGE = 256
_TOKENS_PER_AUDIO = 64
_TOKENS = re.compile(r"<[^<>\s]*>|\s+|[\w]{1,4}|[^\w\s]", re.ASCII)
_DEFAULT_TEXT = (
    "<think>The settings page is open and the row is visible, so I tap it.</think>"
    '<answer>do(action="Tap", element=[499,312])'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeKnobs:
    fake_text: str = option(_DEFAULT_TEXT, "what the fake answers")
    fake_ttft_s: float = option(0.0, "the fake's time to the first token")
    fake_tokens_per_s: float = option(0.0, "the fake's speed of one stream; 0 is as fast as it can")
    fake_fail_at_token: int | None = option(None, "the fake fails instead of sending this token, counted from 0")
    fake_context_tokens: int = option(16384, "the fake's context length")
    fake_ready: bool = option(True, "whether the fake says that it is ready")

    def __post_init__(self) -> None:
        if self.fake_ttft_s < 0 or self.fake_tokens_per_s < 0:
            raise ValueError("--fake-ttft-s and --fake-tokens-per-s must not be negative")


class FakeBackend:
    """Answers every request with the same text, cut by max_tokens and stop strings as the real decoder would."""

    def __init__(self, knobs: FakeKnobs) -> None:
        self._knobs = knobs
        self._tokens = _TOKENS.findall(knobs.fake_text)

    @property
    def features(self) -> frozenset[str]:
        return frozenset(("n", "logprobs"))

    async def generate(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        if request.task.kind is not TaskKind.GENERATE:
            for event in self._side_task(request):
                yield event
            return
        try:
            plan = _plan(request)
            graph = plan.report(encoders_run=_encoders(request), embedding_cache_hits=0)
            usage = self._prompt_usage(request)
            if not self._knobs.fake_ready:
                raise UnavailableError("the fake backend is not ready")
            if self._knobs.fake_fail_at_token == 0:
                raise InternalError("the fake backend failed")
        except AutoglmError as error:
            yield Failed(error=error)
            return
        yield Started(usage=usage, dynamic_graph=graph)
        await asyncio.sleep(self._knobs.fake_ttft_s)
        count = 0
        layers_run: Counter[str] = Counter()
        finish_reason = FinishReason.STOP
        for index in range(request.sampling.n):
            finish_reason = FinishReason.STOP
            for sent, text in enumerate(self._pieces(request)):
                if count == self._knobs.fake_fail_at_token:
                    yield Failed(error=InternalError("the fake backend failed"))
                    return
                if sent == request.sampling.max_tokens:
                    finish_reason = FinishReason.LENGTH
                    break
                await self._pace()
                logprobs = (_logprob(text, request.sampling.top_logprobs),) if request.sampling.logprobs else None
                layers = _layers(plan, sent)
                delta = TokenDelta(text=text, token_ids=(_token_id(text),), index=index, logprobs=logprobs)
                if request.options.return_token_layers:
                    delta = replace(delta, layers=(layers,), chars=(len(text),))
                yield delta
                layers_run[str(layers)] += 1
                count += 1
            if request.sampling.n > 1:
                yield ChoiceFinished(index=index, finish_reason=finish_reason)
        yield Finished(
            finish_reason=finish_reason,
            usage=replace(usage, completion_tokens=count),
            dynamic_graph={**graph, **_ran(plan, layers_run)},
        )

    def _side_task(self, request: ChatRequest) -> tuple[StreamEvent, ...]:
        """The fake's tokens are bytes; what it hears is its answer."""
        text, ids = "", request.task.token_ids
        usage = Usage(audio_tokens=_TOKENS_PER_AUDIO * len(request.audios))
        if request.task.kind is TaskKind.TOKENIZE:
            texts = [message.text for message in request.messages] if request.task.text is None else [request.task.text]
            ids = tuple("".join(texts).encode()) + (0,) * _TOKENS_PER_IMAGE * len(request.images)
        elif request.task.kind is TaskKind.DETOKENIZE:
            text = bytes(token % 256 for token in ids).decode("utf-8", "replace")
        else:
            text = self._knobs.fake_text
        facts: dict[str, Any] = {"max_model_len": self._knobs.fake_context_tokens}
        if request.task.return_token_strs:
            facts["token_strs"] = [chr(token) for token in ids]
        usage = replace(usage, prompt_tokens=usage.audio_tokens, completion_tokens=len(ids))
        return (
            Started(usage=usage, dynamic_graph=facts),
            TokenDelta(text=text, token_ids=ids),
            Finished(finish_reason=FinishReason.STOP, usage=usage, dynamic_graph=facts),
        )

    async def ready(self) -> bool:
        return self._knobs.fake_ready

    async def profile(self, bounds: ProfileBounds) -> Profile:
        raise InvalidRequestError("the fake backend runs no model to profile", code="unsupported_endpoint")

    async def close(self) -> None:
        pass

    async def _pace(self) -> None:
        await asyncio.sleep(1 / self._knobs.fake_tokens_per_s if self._knobs.fake_tokens_per_s else 0)

    def _pieces(self, request: ChatRequest) -> list[str]:
        ends = [self._knobs.fake_text.find(stop) for stop in request.sampling.stop]
        ends = [end for end in ends if end >= 0]
        return _TOKENS.findall(self._knobs.fake_text[: min(ends)]) if ends else self._tokens

    def _prompt_usage(self, request: ChatRequest) -> Usage:
        text_tokens = sum(len(_TOKENS.findall(message.text)) for message in request.messages)
        image_tokens = _TOKENS_PER_IMAGE * len(request.images)
        audio_tokens = _TOKENS_PER_AUDIO * len(request.audios)
        prompt_tokens = text_tokens + image_tokens + audio_tokens
        wanted = request.sampling.max_tokens or 1
        if prompt_tokens + wanted > self._knobs.fake_context_tokens:
            raise InvalidRequestError(
                f"the prompt has {prompt_tokens} tokens and {wanted} are to be generated, "
                f"but the context holds {self._knobs.fake_context_tokens}",
                code="context_length_exceeded",
                param="messages",
            )
        return Usage(prompt_tokens=prompt_tokens, image_tokens=image_tokens, audio_tokens=audio_tokens)


def _plan(request: ChatRequest) -> ExecutionPlan:
    """As the real planner for a checkpoint that has exits and no certificate."""
    asked = parse_depth(request.options.depth, _EXITS, _NUM_LAYERS)
    is_number = request.options.depth not in (None, "auto", "full")
    mode = request.options.exit or (ExitMode.FIXED if is_number else ExitMode.LOSSLESS).value
    if mode not in (ExitMode.FIXED.value, ExitMode.LOSSLESS.value):
        raise InvalidRequestError(f'exit is {mode!r}, the fake knows "fixed" and "lossless"', param="exit")
    if mode == ExitMode.LOSSLESS.value and asked not in (None, _NUM_LAYERS):
        raise InvalidRequestError(f'exit "lossless" answers as full depth does, not as {asked} layers', param="exit")
    check_attention_window(request.options.attention_window, None, ExitMode(mode))
    return ExecutionPlan(
        enabled=True,
        run_vision=bool(request.images),
        run_speech=bool(request.audios),
        num_layers=_NUM_LAYERS,
        depth=_NUM_LAYERS if asked is None else asked,
        exit_mode=ExitMode(mode),
        reason="auto" if asked is None else "requested",
        reasoning_budget_tokens=request.options.max_reasoning_tokens,
    )


def _encoders(request: ChatRequest) -> tuple[str, ...]:
    return tuple(name for name, media in ((VISION, request.images), (SPEECH, request.audios)) if media)


def _layers(plan: ExecutionPlan, token: int) -> int:
    """Lossless: of four tokens in a row, the shallowest exit guesses three."""
    is_guess = plan.exit_mode is ExitMode.LOSSLESS and token % 4
    return _EXITS[0] if is_guess else plan.depth


def _ran(plan: ExecutionPlan, layers_run: Counter[str]) -> dict[str, Any]:
    is_lossless = plan.exit_mode is ExitMode.LOSSLESS
    guessed = layers_run[str(_EXITS[0])] if is_lossless else 0
    return {
        "layers_run": dict(layers_run),
        "layer_steps": plan.depth * layers_run.total(),
        "drafts_proposed": guessed,
        "drafts_accepted": guessed,
        "kv_bytes": _KV_BYTES_PER_LAYER_TOKEN * plan.depth * layers_run.total(),
    }


def _token_id(text: str) -> int:
    return 256 + sum(text.encode()) % 50_000


def _logprob(text: str, num_top: int) -> TokenLogprob:
    raw = text.encode()
    top = ((_token_id(text), text, raw, -0.125),) if num_top else ()
    return TokenLogprob(token_id=_token_id(text), token=text, raw=raw, logprob=-0.125, top=top)

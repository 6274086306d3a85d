"""From a DecodeRequest to an engine request: everything that a caller can get wrong is refused here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from autoglm_backend.engine.certified import CertifiedOffer
from autoglm_backend.engine.model_runner import media_runs
from autoglm_backend.engine.positions import mrope_positions
from autoglm_backend.engine.requests import EngineRequest
from autoglm_backend.engine.sequence import MediaSpan, Prompt, segment_spans
from autoglm_backend.engine.wording import Wording
from autoglm_backend.models.attention_window import AttentionWindow, WindowOffer
from autoglm_backend.models.config import CheckpointError, ModelConfig
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.plan import DepthBy, ExitMode, check_attention_window
from autoglm_protocol.wire import DecodeRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What this checkpoint, with these options, can be asked for."""

    config: ModelConfig
    exits: tuple[int, ...]
    """Depths below full."""
    context_tokens: int
    media_ids: frozenset[int]
    """Placeholders in a prompt that stand for embeddings."""
    certified: CertifiedOffer | CheckpointError
    """The offer, or why there is none."""
    window: WindowOffer | None
    """None where attention cannot be narrowed."""
    wording: Wording

    def engine_request(self, request: DecodeRequest) -> EngineRequest:
        """Raises InvalidRequestError naming the tensor or field."""
        ids = np.asarray(request.prompt_ids)
        vocab_size, context = self.config.text.vocab_size, self.context_tokens
        if len(ids) == 0:
            raise InvalidRequestError("prompt_ids is empty", param="prompt_ids")
        if ids.min() < 0 or ids.max() >= vocab_size:
            raise InvalidRequestError(f"prompt_ids must lie in 0..{vocab_size - 1}", param="prompt_ids")
        if len(ids) >= context:
            raise InvalidRequestError(
                f"the prompt has {len(ids)} tokens, the context holds {context} and needs room for an answer",
                code="context_length_exceeded",
                param="messages",
            )
        sampling = request.sampling
        for name, tokens in (
            ("logit_bias", sampling.logit_bias),
            ("allowed_token_ids", sampling.allowed_token_ids or ()),
            ("stop_token_ids", sampling.stop_token_ids),
        ):
            for token in tokens:
                if not 0 <= token < vocab_size:
                    raise InvalidRequestError(f"token id {token} must lie in 0..{vocab_size - 1}", param=name)
        room = context - len(ids)
        stop_ids = frozenset(sampling.stop_token_ids)
        if not sampling.ignore_eos:
            stop_ids |= frozenset(self.config.eos_token_ids)
        return EngineRequest(
            tag=request.tag,
            prompt=self._prompt(request, ids),
            sampling=sampling,
            segments=self._segments_for(request),
            max_tokens=room if sampling.max_tokens is None else min(sampling.max_tokens, room),
            stop_ids=stop_ids,
            plan=request.plan,
            priority=request.priority,
            probe_depth=self._probe_depth_for(request),
            place=self.wording.place_after(ids),
            grammar=None if sampling.grammar is None else self.wording.grammar(sampling.grammar),
            window=self._window_for(request),
            bad_words=self.wording.bad_words(sampling.bad_words),
        )

    def _segments_for(self, request: DecodeRequest) -> tuple[tuple[int, int], ...]:
        num_layers = self.config.text.num_layers
        depth = request.plan.depth if request.plan else num_layers
        mode = request.plan.exit_mode if request.plan else ExitMode.FIXED
        if mode is ExitMode.CERTIFIED and isinstance(self.certified, CheckpointError):
            raise InvalidRequestError(str(self.certified), param="exit")
        if mode is ExitMode.LOSSLESS and not self.exits:
            raise InvalidRequestError("lossless exits need exit heads, this checkpoint has none", param="exit")
        if mode is not ExitMode.FIXED and depth != num_layers:
            raise InvalidRequestError(f"{mode.value} runs at full depth ({num_layers}), not at {depth}", param="depth")
        if depth not in (*self.exits, num_layers):
            raise InvalidRequestError(f"depth {depth} is not an exit of this checkpoint", param="depth")
        return tuple(span for span in segment_spans(self.exits, num_layers) if span[1] <= depth)

    def _probe_depth_for(self, request: DecodeRequest) -> int | None:
        """The router's exit, where it may answer: it was calibrated for one answer over all keys, at this precision."""
        plan, offer = request.plan, self.certified
        if plan is None or plan.depth_by is not DepthBy.PROBE or isinstance(offer, CheckpointError):
            return None
        is_calibrated = request.sampling.n == 1 and plan.attention_window is None
        return offer.router.depth if offer.router is not None and is_calibrated else None

    def _window_for(self, request: DecodeRequest) -> AttentionWindow | None:
        if request.plan is None or request.plan.attention_window is None:
            return None
        tokens, offer = request.plan.attention_window, self.window
        check_attention_window(tokens, None if offer is None else offer.least, request.plan.exit_mode)
        assert offer is not None, "checked before"
        return offer.window(tokens) if tokens < self.context_tokens else None

    def _prompt(self, request: DecodeRequest, ids: np.ndarray) -> Prompt:
        positions_3T, rope_delta = mrope_positions(ids, self.config.image_token_id, request.image_grids)
        runs = media_runs(ids, self.media_ids)
        wanted = sum(length for _, _, length in runs)
        embeddings = request.embeddings_MD
        given = 0 if embeddings is None else len(embeddings)
        if given != wanted:
            raise InvalidRequestError(
                f"embeddings has {given} rows, prompt_ids holds {wanted} media placeholders", param="embeddings"
            )
        if embeddings is not None and embeddings.shape[1] != self.config.text.hidden_size:
            raise InvalidRequestError(
                f"embeddings has width {embeddings.shape[1]}, expected {self.config.text.hidden_size}",
                param="embeddings",
            )
        # One key for all media of a prompt: what the caller said of its content, or the embeddings themselves.
        digest = hashlib.blake2b(digest_size=16)
        if wanted:
            for item in request.media_hashes or (embeddings.tobytes() if embeddings is not None else b"",):
                digest.update(item)
            digest.update(repr(request.image_grids).encode())
        key = digest.digest()
        return Prompt(
            ids=tuple(ids.tolist()),
            positions_3T=positions_3T,
            rope_delta=rope_delta,
            media=tuple(MediaSpan(start=start, length=length, key=key) for _, start, length in runs),
            embeddings_MD=embeddings,
        )

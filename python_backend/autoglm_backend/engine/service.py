"""From a checkpoint directory and options to a running decoder, and from a DecodeRequest to an engine request.

Everything that a caller can get wrong is refused here, before the engine's thread sees it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from autoglm_backend.engine.block_manager import BlockManager
from autoglm_backend.engine.certified import CertifiedOffer, certified_offer, shadow_checks
from autoglm_backend.engine.engine import Engine
from autoglm_backend.engine.exits import Exits
from autoglm_backend.engine.graphs import CudaCapture, SpanGraphs
from autoglm_backend.engine.kernel_choice import prepare_decoder
from autoglm_backend.engine.kv_cache import KVCache
from autoglm_backend.engine.loading import load_decoder, resolve_device
from autoglm_backend.engine.model_runner import ModelRunner, media_runs
from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.positions import mrope_positions
from autoglm_backend.engine.profiling import StepProfiler, Tell
from autoglm_backend.engine.requests import EngineRequest
from autoglm_backend.engine.scheduler import Scheduler
from autoglm_backend.engine.sequence import Emit, MediaSpan, Prompt, segment_spans
from autoglm_backend.engine.spans import Spans
from autoglm_backend.engine.speculation import DraftController
from autoglm_backend.engine.stats import EngineStats
from autoglm_backend.engine.tensor_parallel import WorkerGroup, rank_threads, start_group
from autoglm_backend.engine.wording import Wording
from autoglm_backend.models.attention_window import AttentionWindow, WindowOffer, load_window_offer
from autoglm_backend.models.config import CheckpointError, ModelConfig, load_model_config
from autoglm_backend.models.exits import load_draft_vocab, load_exit_heads
from autoglm_backend.models.parallel import Shard
from autoglm_backend.models.weights import Progress
from autoglm_backend.preprocess.tokenizer import load_added_tokens
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.plan import ExitMode, check_attention_window
from autoglm_protocol.profile import ProfileBounds
from autoglm_protocol.wire import DecodeRequest

AUDIO_TOKEN = "<|audio|>"


class DecoderService:
    """The text decoder as the rest of the system uses it: add, abort, stats, shutdown."""

    def __init__(
        self,
        engine: Engine,
        config: ModelConfig,
        options: EngineOptions,
        exits: tuple[int, ...],
        media_ids: frozenset[int],
        certified: CertifiedOffer | CheckpointError,
        wording: Wording,
        window: WindowOffer | None,
        group: WorkerGroup | None = None,
    ) -> None:
        # certified: the offer, or why there is none. window: None where attention cannot be narrowed. group: the other
        # ranks of a tensor-parallel decoder.
        self._engine = engine
        self.config = config
        self.options = options
        self.exits = exits
        self.certified = certified
        self._wording = wording
        self._window = window
        self._group = group
        self._media_ids = media_ids
        self._segments = segment_spans(exits, config.text.num_layers)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint_dir: Path,
        options: EngineOptions,
        progress: Progress | None = None,
        *,
        default_exit: ExitMode | None = None,
    ) -> DecoderService:
        """Load weights and start the engine.

        default_exit: the mode of requests that name none; a checkpoint that cannot serve it is refused here. Raises
        CheckpointError naming the file.
        """
        # libgomp keeps a pool for every thread that ever ran a parallel loop, and with two each loop waits for the
        # kernel's scheduler (twice the time per step). A loader that ends leaves the engine's pool the only one.
        with ThreadPoolExecutor(1, thread_name_prefix="loader") as loader:
            return loader.submit(cls._load, checkpoint_dir, options, progress, default_exit).result()

    @classmethod
    def _load(
        cls, checkpoint_dir: Path, options: EngineOptions, progress: Progress | None, default_exit: ExitMode | None
    ) -> DecoderService:
        config = load_model_config(checkpoint_dir)
        device, dtype = resolve_device(options)
        torch.set_num_threads(rank_threads(options, device))
        group = start_group(checkpoint_dir, config.text, options, device)
        try:
            return cls._assemble(checkpoint_dir, config, options, device, dtype, progress, default_exit, group)
        except BaseException:
            if group is not None:
                group.close()
            raise

    @classmethod
    def _assemble(
        cls,
        checkpoint_dir: Path,
        config: ModelConfig,
        options: EngineOptions,
        device: torch.device,
        dtype: torch.dtype,
        progress: Progress | None,
        default_exit: ExitMode | None,
        group: WorkerGroup | None,
    ) -> DecoderService:
        shard = None if group is None else Shard(rank=0, size=options.tensor_parallel_size)
        decoder = load_decoder(checkpoint_dir, config.text, device, dtype, progress, shard=shard)
        exits = load_exit_heads(checkpoint_dir, config.text)
        if exits is not None:
            exits = exits.to(device=device, dtype=dtype)
        depths = exits.depths if exits is not None else ()
        segments = segment_spans(depths, config.text.num_layers)
        certified = certified_offer(checkpoint_dir, config, depths, device, dtype, options.quantization)
        if default_exit is ExitMode.CERTIFIED and isinstance(certified, CheckpointError):
            raise certified
        if default_exit is ExitMode.LOSSLESS and not depths:
            raise CheckpointError(f"{checkpoint_dir}: lossless exits need exit heads, there is no exits/exits.json")
        # Over several GPUs every rank would have to capture the same shapes at the same moment.
        has_graphs = device.type == "cuda" and options.cuda_graphs and group is None
        cache = KVCache(
            *(decoder.config, options.num_blocks + has_graphs, options.block_tokens, dtype, device),
            sparse_prefill=options.sparse_prefill,
        )
        blocks = BlockManager(
            len(segments),
            options.num_blocks,
            options.block_tokens,
            prefix_cache=options.prefix_cache,
            block_bytes=[cache.bytes_per_token(last - first) * options.block_tokens for first, last in segments],
        )
        scheduler = Scheduler(
            blocks,
            batch_limit=options.batch_limit,
            max_step_tokens=options.max_step_tokens,
            ageing_s=options.ageing_s,
            clock=time.monotonic,
        )
        tokens = {token.content: token.id for token in load_added_tokens(checkpoint_dir)}
        audio_ids = [tokens[AUDIO_TOKEN]] if AUDIO_TOKEN in tokens else []
        media_ids = frozenset[int]([config.image_token_id, *audio_ids])
        think_ids = (tokens["<think>"], tokens["</think>"]) if {"<think>", "</think>"} <= tokens.keys() else None
        draft_ids_K = load_draft_vocab(checkpoint_dir, config.text) if options.draft_vocab else None
        offer = None if isinstance(certified, CheckpointError) else certified
        heads = Exits(
            decoder,
            exits,
            certified=offer.exits if offer else None,
            draft_ids_K=None if draft_ids_K is None else draft_ids_K.to(device),
        )
        prepare_decoder(decoder, options.quantization, options.block_tokens)
        if has_graphs:
            decoder.prepared = SpanGraphs(decoder.run_layers, decoder.config, cache, CudaCapture())
        if group is not None:
            group.await_loaded()
            decoder.prepared = group.spans(decoder.prepared or decoder.run_layers)
        engine = Engine(
            ModelRunner(Spans(decoder, cache, segments), heads),
            blocks,
            scheduler,
            drafts=DraftController(depths, config.text.num_layers, max_drafts=options.max_drafts),
            max_waiting=options.max_waiting,
            think_ids=think_ids,
            shadows=shadow_checks(offer, checkpoint_dir, config, options.shadow_share) if offer else None,
            profiler=StepProfiler(on_cuda=device.type == "cuda"),
        )
        engine.start()
        wording, window = Wording(checkpoint_dir, config), load_window_offer(checkpoint_dir)
        return cls(engine, config, options, depths, media_ids, certified, wording, window, group)

    @property
    def context_tokens(self) -> int:
        limit = min(self.config.text.max_positions, self.options.kv_cache_tokens)
        return min(limit, self.options.max_model_len or limit)

    def load_wording(self) -> None:
        """Read the tokenizer before the first grammar needs it. Raises CheckpointError."""
        self._wording.load()

    def add(self, request: DecodeRequest, emit: Emit) -> None:
        """Check and queue a request. Raises InvalidRequestError naming the tensor or field, or OverloadedError."""
        self._engine.add(self._checked(request), emit)

    def abort(self, tag: str) -> None:
        self._engine.abort(tag)

    def stats(self) -> EngineStats:
        return self._engine.stats()

    def profile(self, bounds: ProfileBounds, tell: Tell) -> None:
        """See `Engine.profile`. Of a tensor-parallel decoder, the first rank is seen."""
        self._engine.profile(bounds, tell)

    def watch(self, on_lost: Callable[[str], None]) -> None:
        """Call `on_lost` with the reason when the decoder cannot go on; its requests have then ended in Failed."""

        def lose(message: str) -> None:
            self._engine.fail(message)
            on_lost(message)

        if self._group is not None:
            self._group.watch(lose)

    def shutdown(self) -> None:
        self._engine.shutdown()
        if self._group is not None:
            self._group.close()

    def _checked(self, request: DecodeRequest) -> EngineRequest:
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
        for token in (*request.sampling.logit_bias, *(request.sampling.allowed_token_ids or ())):
            if not 0 <= token < vocab_size:
                raise InvalidRequestError(f"token id {token} must lie in 0..{vocab_size - 1}", param="logit_bias")
        for token in request.sampling.stop_token_ids:
            if not 0 <= token < vocab_size:
                raise InvalidRequestError(f"token id {token} must lie in 0..{vocab_size - 1}", param="stop_token_ids")
        sampling = request.sampling
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
            place=self._wording.place_after(ids),
            grammar=None if sampling.grammar is None else self._wording.grammar(sampling.grammar),
            window=self._window_for(request),
            bad_words=self._wording.bad_words(sampling.bad_words),
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
        return tuple(span for span in self._segments if span[1] <= depth)

    def _window_for(self, request: DecodeRequest) -> AttentionWindow | None:
        if request.plan is None or request.plan.attention_window is None:
            return None
        tokens, offer = request.plan.attention_window, self._window
        check_attention_window(tokens, None if offer is None else offer.least, request.plan.exit_mode)
        assert offer is not None, "checked before"
        return offer.window(tokens) if tokens < self.context_tokens else None

    def _prompt(self, request: DecodeRequest, ids: np.ndarray) -> Prompt:
        positions_3T, rope_delta = mrope_positions(ids, self.config.image_token_id, request.image_grids)
        runs = media_runs(ids, self._media_ids)
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

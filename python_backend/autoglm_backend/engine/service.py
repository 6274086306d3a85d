"""From a checkpoint directory and options to a running decoder, and from a DecodeRequest to an engine request.

Everything that a caller can get wrong is refused here, before the engine's thread sees it.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import numpy as np
import torch

from autoglm_backend.engine.block_manager import BlockManager
from autoglm_backend.engine.engine import Engine, EngineRequest, EngineStats
from autoglm_backend.engine.kv_cache import KVCache
from autoglm_backend.engine.model_runner import ModelRunner, media_runs
from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.positions import mrope_positions
from autoglm_backend.engine.scheduler import Scheduler
from autoglm_backend.engine.sequence import Emit, MediaSpan, Prompt, segment_spans
from autoglm_backend.engine.speculation import DraftController
from autoglm_backend.models.config import CheckpointError, ModelConfig, load_model_config
from autoglm_backend.models.decoder import TextDecoder
from autoglm_backend.models.exits import load_exit_heads
from autoglm_backend.models.weights import Progress, checkpoint_shards, load_module, text_name
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.plan import ExitMode
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
    ) -> None:
        self._engine = engine
        self.config = config
        self.options = options
        self.exits = exits
        self._media_ids = media_ids
        self._segments = segment_spans(exits, config.text.num_layers)

    @classmethod
    def from_checkpoint(
        cls, checkpoint_dir: Path, options: EngineOptions, progress: Progress | None = None
    ) -> DecoderService:
        """Load weights and start the engine. Raises CheckpointError naming the file."""
        torch.set_num_threads(options.num_threads)
        config = load_model_config(checkpoint_dir)
        device, dtype = resolve_device(options)
        decoder = load_decoder(checkpoint_dir, config, device, dtype, progress)
        exits = load_exit_heads(checkpoint_dir, config.text)
        if exits is not None:
            exits = exits.to(device=device, dtype=dtype)
        depths = exits.depths if exits is not None else ()
        segments = segment_spans(depths, config.text.num_layers)
        num_blocks = -(-options.kv_cache_tokens // options.block_tokens)
        cache = KVCache(config.text, num_blocks, options.block_tokens, dtype, device)
        blocks = BlockManager(len(segments), num_blocks, options.block_tokens, prefix_cache=options.prefix_cache)
        scheduler = Scheduler(
            blocks,
            batch_limit=options.batch_limit,
            max_step_tokens=options.max_step_tokens,
            ageing_s=options.ageing_s,
            clock=time.monotonic,
        )
        tokens = added_tokens(checkpoint_dir)
        audio_ids = [tokens[AUDIO_TOKEN]] if AUDIO_TOKEN in tokens else []
        media_ids = frozenset[int]([config.image_token_id, *audio_ids])
        think_ids = (tokens["<think>"], tokens["</think>"]) if {"<think>", "</think>"} <= tokens.keys() else None
        runner = ModelRunner(decoder, exits, cache, segments, media_ids)
        engine = Engine(
            runner,
            blocks,
            scheduler,
            drafts=DraftController(depths, config.text.num_layers, max_drafts=options.max_drafts),
            max_waiting=options.max_waiting,
            think_ids=think_ids,
        )
        engine.start()
        return cls(engine, config, options, depths, media_ids)

    @property
    def context_tokens(self) -> int:
        limit = min(self.config.text.max_positions, self.options.kv_cache_tokens)
        return min(limit, self.options.max_model_len or limit)

    def add(self, request: DecodeRequest, emit: Emit) -> None:
        """Check and queue a request. Raises InvalidRequestError naming the tensor or field, or OverloadedError."""
        self._engine.add(self._checked(request), emit)

    def abort(self, tag: str) -> None:
        self._engine.abort(tag)

    def stats(self) -> EngineStats:
        return self._engine.stats()

    def shutdown(self) -> None:
        self._engine.shutdown()

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
        )

    def _segments_for(self, request: DecodeRequest) -> tuple[tuple[int, int], ...]:
        num_layers = self.config.text.num_layers
        depth = request.plan.depth if request.plan else num_layers
        mode = request.plan.exit_mode if request.plan else ExitMode.FIXED
        if mode is ExitMode.CERTIFIED:
            raise InvalidRequestError("certified exits need a certificate, this checkpoint has none", param="exit")
        if mode is ExitMode.LOSSLESS and not self.exits:
            raise InvalidRequestError("lossless exits need exit heads, this checkpoint has none", param="exit")
        if mode is ExitMode.LOSSLESS and depth != num_layers:
            raise InvalidRequestError(f"lossless runs at full depth ({num_layers}), not at {depth}", param="depth")
        if depth not in (*self.exits, num_layers):
            raise InvalidRequestError(f"depth {depth} is not an exit of this checkpoint", param="depth")
        return tuple(span for span in self._segments if span[1] <= depth)

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


def resolve_device(options: EngineOptions) -> tuple[torch.device, torch.dtype]:
    """Turn "auto" into a device and a precision, once. Raises ValueError when CUDA was asked for and there is none."""
    has_cuda = torch.cuda.is_available()
    if options.device == "cuda" and not has_cuda:
        raise ValueError("device is cuda, but torch finds no CUDA GPU")
    device = torch.device("cuda" if options.device == "cuda" or (options.device == "auto" and has_cuda) else "cpu")
    name = options.dtype
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" else "float32"
    return device, getattr(torch, name)


def load_decoder(
    checkpoint_dir: Path,
    config: ModelConfig,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress | None = None,
) -> TextDecoder:
    with torch.device("meta"):
        decoder = TextDecoder(config.text)
    decoder = decoder.to(dtype).to_empty(device=device)
    if config.text.tie_word_embeddings:
        # to_empty gives tied parameters storage of their own.
        decoder.lm_head.weight = decoder.embed_tokens.weight
    load_module(decoder, checkpoint_shards(checkpoint_dir), text_name, progress)
    return decoder.eval().requires_grad_(False)


def added_tokens(checkpoint_dir: Path) -> dict[str, int]:
    """Text to id of the tokenizer's added tokens. Raises CheckpointError."""
    path = checkpoint_dir / "tokenizer.json"
    try:
        return {t["content"]: t["id"] for t in json.loads(path.read_text(encoding="utf-8"))["added_tokens"]}
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a tokenizers file ({error})") from error

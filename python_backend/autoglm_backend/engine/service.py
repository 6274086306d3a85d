"""From a checkpoint directory and options to a running decoder."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from autoglm_backend.cpus import CpuMeter
from autoglm_backend.engine.admission import Admission
from autoglm_backend.engine.block_manager import BlockManager
from autoglm_backend.engine.certified import CertifiedOffer, certified_offer, shadow_checks
from autoglm_backend.engine.engine import Engine
from autoglm_backend.engine.exits import Exits
from autoglm_backend.engine.graphs import CudaCapture, SpanGraphs
from autoglm_backend.engine.kernel_choice import prepare_decoder
from autoglm_backend.engine.kv_cache import KVCache
from autoglm_backend.engine.loading import load_decoder, resolve_device
from autoglm_backend.engine.model_runner import ModelRunner
from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.profiling import StepProfiler, Tell
from autoglm_backend.engine.scheduler import Scheduler
from autoglm_backend.engine.sequence import Emit, segment_spans
from autoglm_backend.engine.spans import Spans
from autoglm_backend.engine.speculation import DraftController
from autoglm_backend.engine.stats import EngineStats
from autoglm_backend.engine.team_size import TeamSize
from autoglm_backend.engine.tensor_parallel import WorkerGroup, rank_threads, start_group
from autoglm_backend.engine.wording import Wording
from autoglm_backend.models.attention_window import load_window_offer
from autoglm_backend.models.config import CheckpointError, ModelConfig, load_model_config
from autoglm_backend.models.exits import load_draft_vocab, load_exit_heads
from autoglm_backend.models.parallel import Shard
from autoglm_backend.models.weights import Progress
from autoglm_backend.preprocess.tokenizer import load_added_tokens
from autoglm_protocol.plan import ExitMode
from autoglm_protocol.profile import ProfileBounds
from autoglm_protocol.wire import DecodeRequest

AUDIO_TOKEN = "<|audio|>"


class DecoderService:
    """The text decoder as the rest of the system uses it: add, abort, stats, shutdown."""

    def __init__(
        self,
        engine: Engine,
        admission: Admission,
        options: EngineOptions,
        group: WorkerGroup | None = None,
    ) -> None:
        # group: the other ranks of a tensor-parallel decoder.
        self._engine = engine
        self._admission = admission
        self.options = options
        self._group = group

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
        decoder = load_decoder(
            *(checkpoint_dir, config.text, device, dtype, progress), shard=shard, quantization=options.quantization
        )
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
            router=offer.router if offer else None,
            draft_ids_K=None if draft_ids_K is None else draft_ids_K.to(device),
        )
        prepare_decoder(decoder, options.quantization, options.block_tokens)
        if has_graphs:
            decoder.prepared = SpanGraphs(decoder.run_layers, decoder.config, cache, CudaCapture())
        if group is not None:
            group.await_loaded()
            decoder.prepared = group.spans(decoder.prepared or decoder.run_layers)
        # Ranks of a tensor-parallel decoder wait for each other anyway, and share the CPUs already.
        is_team = device.type == "cpu" and group is None
        team = TeamSize(options.num_threads if is_team else 1, read=CpuMeter().read, resize=torch.set_num_threads)
        engine = Engine(
            ModelRunner(Spans(decoder, cache, segments), heads),
            blocks,
            scheduler,
            drafts=DraftController(depths, config.text.num_layers, max_drafts=options.max_drafts),
            max_waiting=options.max_waiting,
            think_ids=think_ids,
            shadows=shadow_checks(offer, checkpoint_dir, config, options.shadow_share) if offer else None,
            profiler=StepProfiler(on_cuda=device.type == "cuda"),
            before_step=team.turn,
        )
        engine.start()
        context_tokens = min(config.text.max_positions, options.kv_cache_tokens)
        admission = Admission(
            config=config,
            exits=depths,
            context_tokens=min(context_tokens, options.max_model_len or context_tokens),
            media_ids=media_ids,
            certified=certified,
            window=load_window_offer(checkpoint_dir),
            wording=Wording(checkpoint_dir, config),
        )
        return cls(engine, admission, options, group)

    @property
    def config(self) -> ModelConfig:
        return self._admission.config

    @property
    def exits(self) -> tuple[int, ...]:
        """Depths below full at which this checkpoint can answer."""
        return self._admission.exits

    @property
    def certified(self) -> CertifiedOffer | CheckpointError:
        """What certified mode promises, or why it is not on offer."""
        return self._admission.certified

    @property
    def context_tokens(self) -> int:
        return self._admission.context_tokens

    def load_wording(self) -> None:
        """Read the tokenizer before the first grammar needs it. Raises CheckpointError."""
        self._admission.wording.load()

    def add(self, request: DecodeRequest, emit: Emit) -> None:
        """Check and queue a request. Raises InvalidRequestError naming the tensor or field, or OverloadedError."""
        self._engine.add(self._admission.engine_request(request), emit)

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

"""Two gloo ranks on a CPU against one: the same tokens in every exit mode, and a clean end however it comes."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from tests.engine.depth_world import certified_checkpoint
from tests.engine.test_engine import Stream, add_exits, ask, prompt
from tests.random_checkpoint import Shape, random_checkpoint

from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.service import DecoderService
from autoglm_backend.models.config import CheckpointError, load_model_config
from autoglm_backend.models.parallel import Shard, check_parallel, cut_of
from autoglm_protocol.errors import UnavailableError
from autoglm_protocol.events import Failed
from autoglm_protocol.plan import ExitMode
from autoglm_protocol.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0.0, max_tokens=16, ignore_eos=True)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certified_checkpoint(tmp_path_factory.mktemp("depths"), {1: 0.5, 2: 0.5})


def service(directory: Path, size: int, **options: object) -> DecoderService:
    chosen = {"dtype": "float64", "kv_cache_tokens": 512, **options}
    return DecoderService.from_checkpoint(
        directory,
        EngineOptions(device="cpu", threads=1, tensor_parallel_size=size, **chosen),  # type: ignore[arg-type]
    )


def answers(directory: Path, size: int, **options: object) -> list[list[int]]:
    """A prompt of several chunks in each exit mode, all at once."""
    engine = service(directory, size, shadow_share=0.0, max_step_tokens=16, **options)
    modes = [(ExitMode.FIXED, 4), (ExitMode.FIXED, 2), (ExitMode.LOSSLESS, 4)]
    if not isinstance(engine.certified, CheckpointError):
        modes.append((ExitMode.CERTIFIED, 4))
    streams = [Stream() for _ in modes]
    for number, (stream, (mode, depth)) in enumerate(zip(streams, modes, strict=True)):
        request = ask(f"r{number}", prompt(40, number), depth=depth, exit_mode=mode, sampling=GREEDY)
        engine.add(request, stream)
    ids = [stream.ids() for stream in streams]
    engine.shutdown()
    return ids


def test_two_ranks_give_the_tokens_of_one_in_every_exit_mode(directory: Path) -> None:
    one = answers(directory, 1)
    assert len(one) == 4
    assert answers(directory, 2) == one


def test_packed_products_give_the_tokens_of_one_rank(directory: Path) -> None:
    assert answers(directory, 2, dtype="float32") == answers(directory, 1, dtype="float32")


def test_key_heads_are_repeated_where_there_are_fewer_than_ranks(tmp_path: Path) -> None:
    random_checkpoint(tmp_path, Shape(kv_heads=1, tied=True, num_shards=2))
    add_exits(tmp_path, [1, 2])
    assert answers(tmp_path, 2) == answers(tmp_path, 1)


def test_a_dead_rank_fails_every_request_once_and_says_so(directory: Path) -> None:
    engine = service(directory, 2)
    lost, reasons = threading.Event(), list[str]()
    engine.watch(lambda message: (reasons.append(message), lost.set()))
    endless = SamplingParams(temperature=0.0, max_tokens=400, ignore_eos=True)
    streams = [Stream() for _ in range(3)]
    for number, stream in enumerate(streams):
        engine.add(ask(f"r{number}", prompt(9, number), sampling=endless), stream)
    assert streams[0].first_token.wait(60)
    assert engine._group is not None
    process = engine._group._workers[0][0]
    process.send_signal(signal.SIGKILL)
    assert lost.wait(60)
    assert [isinstance(stream.end(), Failed) for stream in streams] == [True] * 3
    assert [sum(isinstance(e, Failed) for e in stream.events) for stream in streams] == [1] * 3
    assert reasons == [f"tensor-parallel rank 1 (process {process.pid}) was killed by signal 9"]
    with pytest.raises(UnavailableError, match="killed by signal 9"):
        engine.add(ask("late", prompt(9, 9)), Stream())
    engine.shutdown()


def test_shutdown_ends_every_rank(directory: Path) -> None:
    engine = service(directory, 2)
    assert engine._group is not None
    process = engine._group._workers[0][0]
    engine.shutdown()
    assert process.returncode == 0


def test_a_rank_that_cannot_load_speaks_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random_checkpoint(tmp_path, Shape())
    monkeypatch.setattr("autoglm_backend.engine.tensor_parallel.WORKER_MODULE", "autoglm_backend.no_such_module")
    with pytest.raises(CheckpointError, match="rank 1 ended with status 1 before it had joined"):
        service(tmp_path, 2)


def test_a_size_that_does_not_divide_the_heads_names_both(tmp_path: Path) -> None:
    random_checkpoint(tmp_path, Shape())
    with pytest.raises(ValueError, match="--tensor-parallel-size 3 does not divide the 4 attention heads"):
        service(tmp_path, 3)


def test_parts_of_all_ranks_make_up_the_whole(tmp_path: Path) -> None:
    random_checkpoint(tmp_path, Shape())
    config = load_model_config(tmp_path).text
    for name, length in (("q_proj", 64), ("k_proj", 32), ("o_proj", 64), ("gate_up_proj", 256), ("down_proj", 128)):
        seen = np.zeros(length, dtype=int)
        for rank in range(2):
            cut = cut_of(f"layers.0.x.{name}.weight", config, Shard(rank=rank, size=2))
            assert cut is not None
            assert cut.size == length
            for low, high in cut.ranges:
                seen[low:high] += 1
        assert seen.tolist() == [1] * length


def test_ranks_may_be_a_multiple_of_the_key_heads_or_divide_them(tmp_path: Path) -> None:
    random_checkpoint(tmp_path, Shape())
    config = load_model_config(tmp_path).text
    check_parallel(config, 4)
    assert [cut_of("layers.0.k_proj.bias", config, Shard(rank=rank, size=4)).ranges for rank in range(4)] == [
        ((0, 16),),
        ((0, 16),),
        ((16, 32),),
        ((16, 32),),
    ]

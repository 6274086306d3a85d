"""The router in the engine: requests whose prompt it is sure of end at the first exit, the others go on as planned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.engine.depth_world import Dense, certified_checkpoint, service, write_certificate
from tests.engine.test_engine import Stream, ask, prompt

from autoglm_backend.models.config import CheckpointError
from autoglm_backend.models.router import Router, load_router
from autoglm_protocol.events import Finished
from autoglm_protocol.plan import DepthBy, ExecutionPlan, ExitMode
from autoglm_protocol.sampling import SamplingParams
from autoglm_protocol.wire import DecodeRequest

PROMPTS = [prompt(9 + 2 * seed, seed) for seed in range(6)]
DESCRIPTION = {"depth": 1, "delta": 0.02, "epsilon": 0.05, "num_requests": 400, "num_mismatches": 0, "share": 0.5}


def write_router(directory: Path, threshold: float) -> None:
    weight_D = torch.randn(64, generator=torch.Generator().manual_seed(7))
    save_file({"weight": weight_D, "bias": torch.zeros(())}, directory / "exits" / "router.safetensors")
    (directory / "exits" / "router.json").write_text(json.dumps({**DESCRIPTION, "threshold": threshold}))
    write_certificate(directory, {})


def confidence(router: Router, dense: Dense, ids: np.ndarray) -> float:
    return float(router.confidence(dense._states(ids.tolist())[1].mean(dim=0)[None])[0])


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A router that is sure of the half of PROMPTS that it likes best."""
    directory = certified_checkpoint(tmp_path_factory.mktemp("routed"), {})
    write_router(directory, 0.5)
    router, dense = load_router(directory, 64, (1, 2)), Dense(directory)
    assert router is not None
    likes = sorted(confidence(router, dense, ids) for ids in PROMPTS)
    write_router(directory, (likes[2] + likes[3]) / 2)
    return directory


def auto(tag: str, ids: np.ndarray, **sampling: int) -> DecodeRequest:
    plan = ExecutionPlan(
        enabled=True,
        run_vision=False,
        run_speech=False,
        num_layers=4,
        depth=4,
        exit_mode=ExitMode.FIXED,
        reason="auto: media, the router decides",
        depth_by=DepthBy.PROBE,
    )
    params = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True, **sampling)  # type: ignore[arg-type]
    return replace(ask(tag, ids, sampling=params), plan=plan)


def finished(stream: Stream) -> Finished:
    end = stream.end()
    assert isinstance(end, Finished)
    return end


@pytest.mark.parametrize(
    "pressure",
    [{}, {"max_step_tokens": 6, "block_tokens": 4}, {"kv_cache_tokens": 80, "block_tokens": 4}],
    ids=["free", "chunked", "preempted"],
)
def test_sure_requests_answer_as_the_first_exit_and_the_others_as_full_depth(
    routed: Path, pressure: dict[str, int]
) -> None:
    engine, streams = service(routed, **pressure), [Stream() for _ in PROMPTS]
    for number, (ids, stream) in enumerate(zip(PROMPTS, streams, strict=True)):
        engine.add(auto(f"r{number}", ids), stream)
    answers = [stream.ids() for stream in streams]
    reports = [finished(stream).dynamic_graph for stream in streams]
    stats = engine.stats()
    engine.shutdown()
    router, dense = load_router(routed, 64, (1, 2)), Dense(routed)
    assert router is not None
    is_sure = [confidence(router, dense, ids) >= router.threshold for ids in PROMPTS]
    assert sum(is_sure) == 3
    for ids, sure, answer, report in zip(PROMPTS, is_sure, answers, reports, strict=True):
        expected = dense.fixed(ids, 12, 1) if sure else dense.certified(ids, 12, {}).ids
        assert answer == expected
        assert (report["depth"], report["depth_by"]) == ((1, "probe") if sure else (4, "abstained"))
        assert "confidence" in report["reason"]
    assert stats.kv_usage == 0.0, "deeper blocks of a request that stayed shallow were given back"


def test_the_answer_does_not_depend_on_what_the_prefix_cache_holds(routed: Path) -> None:
    engine, before, after = service(routed, block_tokens=4), Stream(), Stream()
    engine.add(auto("a", PROMPTS[5]), before)
    first = finished(before).dynamic_graph
    engine.add(auto("b", PROMPTS[5]), after)
    second = finished(after)
    engine.shutdown()
    assert second.usage.cached_tokens == 0
    assert first["reason"] == second.dynamic_graph["reason"]


def test_without_a_matching_certificate_the_router_is_not_asked(tmp_path: Path) -> None:
    directory = certified_checkpoint(tmp_path / "c", {})
    write_router(directory, 0.0)
    write_certificate(directory, {}, dtype="float32")
    engine, stream = service(directory), Stream()
    engine.add(auto("a", PROMPTS[0]), stream)
    report = finished(stream).dynamic_graph
    engine.shutdown()
    assert (report["depth"], report["depth_by"]) == (4, "abstained")
    assert "not asked" in report["reason"]


def test_several_choices_are_not_routed(routed: Path) -> None:
    engine, stream = service(routed), Stream()
    engine.add(auto("a", PROMPTS[0], n=2), stream)
    report = finished(stream).dynamic_graph
    engine.shutdown()
    assert (report["depth"], report["depth_by"]) == (4, "abstained")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [({"depth": 3}, "depth is 3"), ({"threshold": "high"}, "threshold is 'high'"), ({"extra": 1}, "not a router")],
)
def test_a_broken_router_is_refused_naming_file_and_field(
    tmp_path: Path, changes: dict[str, object], complaint: str
) -> None:
    directory = certified_checkpoint(tmp_path / "c", {})
    write_router(directory, 0.5)
    path = directory / "exits" / "router.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(CheckpointError, match=rf"router\.json: .*{complaint}"):
        load_router(directory, 64, (1, 2))

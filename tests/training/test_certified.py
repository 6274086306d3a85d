"""What calibration simulates is what the engine does: equal tokens and equal layers under certified exits."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny_checkpoint import EXITS, NUM_LAYERS, write_checkpoint

from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.service import DecoderService
from autoglm_backend.models.certificate import Certificate, checkpoint_sha256
from autoglm_backend.models.decoder import causal_attend
from autoglm_backend.models.gates import ExitGates
from autoglm_protocol.events import Finished, StreamEvent, TokenDelta
from autoglm_protocol.plan import ExecutionPlan, ExitMode
from autoglm_protocol.sampling import SamplingParams
from autoglm_protocol.wire import DecodeRequest
from autoglm_training.exits.decoding import Leave, Prompt, Trace, decode
from autoglm_training.exits.files import save_certificate, save_gates
from autoglm_training.exits.quantized import _on_gpu, quantize_as_served
from autoglm_training.loading import load_checkpoint
from autoglm_training.samples import Row, add_tokens

NEW_TOKENS = 12
PROMPTS = ([70, 80, 90], [65, 66, 67, 68, 69, 70, 71], list(range(97, 120)), [33])
THRESHOLDS = {6: 0.55, 12: 0.5, 18: 0.5}


@pytest.fixture(scope="module", params=["none", "int8", "int4"])
def quantization(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, quantization: str) -> Path:
    path = write_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    gates = ExitGates(EXITS, 48, uses_margin=True)
    generator = torch.Generator().manual_seed(3)
    for parameter in gates.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    save_gates(path, gates)
    certificate = Certificate(
        risk="none: a test's thresholds",
        delta=0.5,
        epsilon=0.5,
        num_requests=1,
        num_mismatches=0,
        max_tokens=64,
        dtype="float32",
        quantization=quantization,
        checkpoint_sha256=checkpoint_sha256(path),
        thresholds=THRESHOLDS,
        mean_layers=24.0,
    )
    save_certificate(path, certificate)
    return path


def served(directory: Path, quantization: str) -> list[Trace]:
    service = DecoderService.from_checkpoint(
        directory, EngineOptions(device="cpu", threads=1, quantization=quantization)
    )
    try:
        return [_answer(service, number, ids) for number, ids in enumerate(PROMPTS)]
    finally:
        service.shutdown()


def _answer(service: DecoderService, number: int, ids: Sequence[int]) -> Trace:
    events: list[StreamEvent] = []
    done = threading.Event()

    def emit(event: StreamEvent) -> None:
        events.append(event)
        if not isinstance(event, TokenDelta):
            done.set()

    plan = ExecutionPlan(
        enabled=True,
        run_vision=False,
        run_speech=False,
        num_layers=NUM_LAYERS,
        depth=NUM_LAYERS,
        exit_mode=ExitMode.CERTIFIED,
        reason="test",
    )
    sampling = SamplingParams(temperature=0.0, max_tokens=NEW_TOKENS)
    request = DecodeRequest(tag=f"r{number}", prompt_ids=np.array(ids, dtype=np.int32), sampling=sampling, plan=plan)
    service.add(request, emit)
    assert done.wait(60)
    assert isinstance(events[-1], Finished)
    deltas = [event for event in events if isinstance(event, TokenDelta)]
    return Trace(
        ids=[token for delta in deltas for token in delta.token_ids],
        layers=[layers for delta in deltas for layers in delta.layers or ()],
    )


def test_the_reference_decoder_says_what_the_engine_says(directory: Path, quantization: str) -> None:
    loaded = load_checkpoint(directory)
    quantize_as_served(loaded.decoder, quantization)
    gates = ExitGates(EXITS, 48, uses_margin=True)
    generator = torch.Generator().manual_seed(3)
    for parameter in gates.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    assert loaded.exits is not None
    leave = Leave(heads=loaded.exits, gates=gates, thresholds=THRESHOLDS)
    prompts: list[Prompt] = []
    for ids in PROMPTS:
        row = Row()
        add_tokens(row, ids)
        prompts.append(Prompt(row=row))
    simulated = decode(loaded.decoder, prompts, loaded.eos_ids, leave=leave, max_tokens=NEW_TOKENS)
    engine = served(directory, quantization)
    assert [trace.ids for trace in simulated] == [trace.ids for trace in engine]
    assert [trace.layers for trace in simulated] == [trace.layers for trace in engine]
    used = {layers for trace in simulated for layers in trace.layers}
    assert len(used) > 1, "the test's gates must let some tokens leave and keep some"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("plain"))


def test_quantized_products_are_not_the_plain_ones(checkpoint: Path) -> None:
    plain, int8 = load_checkpoint(checkpoint).decoder, load_checkpoint(checkpoint).decoder
    quantize_as_served(int8, "int8")
    hidden_BTD = torch.randn(2, 3, 48, generator=torch.Generator().manual_seed(1))
    rotation = plain.rotation(torch.arange(3).expand(3, 2, 3))
    a, b = (decoder.run_span(0, 24, hidden_BTD, rotation, causal_attend) for decoder in (plain, int8))
    assert 0 < (a - b).norm() / a.norm() < 0.2


@pytest.mark.parametrize(
    ("scheme", "dtype", "complaint"),
    [("fp8", torch.float32, "needs a CUDA GPU"), ("int8", torch.float16, "needs a CPU and float32 or bfloat16")],
)
def test_a_scheme_that_this_device_has_not_is_refused(
    checkpoint: Path, scheme: str, dtype: torch.dtype, complaint: str
) -> None:
    decoder = load_checkpoint(checkpoint, dtype=dtype).decoder
    with pytest.raises(ValueError, match=complaint):
        quantize_as_served(decoder, scheme)


def test_a_gpus_integer_products_run_over_batches(checkpoint: Path) -> None:
    # torch has the same integer product on a CPU, so what a GPU would run can be tried without one
    plain, int8 = load_checkpoint(checkpoint).decoder, load_checkpoint(checkpoint).decoder
    _on_gpu(int8, "int8")
    hidden_BTD = torch.randn(2, 3, 48, generator=torch.Generator().manual_seed(1))
    rotation = plain.rotation(torch.arange(3).expand(3, 2, 3))
    a, b = (decoder.run_span(0, 24, hidden_BTD, rotation, causal_attend) for decoder in (plain, int8))
    assert 0 < (a - b).norm() / a.norm() < 0.2

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.stack import Stack, running_stack
from tests.otlp import Collector, collector
from tests.tiny_checkpoint import write_checkpoint


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def traces() -> Iterator[Collector]:
    """What the shared stack sends to its OpenTelemetry collector."""
    with collector() as collected:
        yield collected


@pytest.fixture(scope="session")
def stack(tiny_checkpoint: Path, traces: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Launcher, Triton and gateway on a random checkpoint, shared by every test that leaves it as it was."""
    environment = {
        **os.environ,
        "AUTOGLM_GATEWAY_OTLP_ENDPOINT": traces.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "100",  # ms until spans are sent, 5000 by default
    }
    with running_stack(tiny_checkpoint, tmp_path_factory.mktemp("logs"), environment=environment) as stack:
        yield stack

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.gateway.processes import Gateway, Triton, running_gateway, running_triton


@pytest.fixture(scope="session")
def gateway() -> Iterator[Gateway]:
    """A gateway in front of the fake backend, shared by every test that leaves it as it was."""
    with running_gateway("--fake") as gateway:
        yield gateway


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with running_triton(tmp_path_factory.mktemp("triton")) as triton:
        yield triton


@pytest.fixture(scope="session")
def triton_gateway(triton: Triton) -> Iterator[Gateway]:
    """A gateway in front of the scripted model in a real Triton."""
    with running_gateway("--triton-grpc", triton.grpc, "--triton-metrics", triton.metrics) as gateway:
        yield gateway

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from tests.gateway.processes import Gateway, running_gateway
from tests.helm.chart import ROOT


@pytest.fixture(scope="session")
def promtool() -> Path:
    built = ROOT / ".cache/prometheus/promtool"
    found = shutil.which("promtool") or (str(built) if os.access(built, os.X_OK) else None)
    if found is None:
        missing("no promtool on PATH or in .cache/prometheus: run scripts/get_promtool.sh")
    return Path(found)


def missing(what: str) -> NoReturn:
    """Ends the test: skipped, or failed where this tier was asked for by name (make test-helm)."""
    if os.environ.get("AUTOGLM_ASKED_FOR") == "helm":
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


@pytest.fixture(scope="session")
def fake_gateway() -> Iterator[Gateway]:
    with running_gateway("--fake") as gateway:
        yield gateway


@pytest.fixture(scope="session")
def lonely_gateway() -> Iterator[Gateway]:
    """With no Triton to be reached, which is how a release that is scaled to zero stands."""
    with running_gateway("--triton-grpc", "127.0.0.1:1", "--triton-metrics", "") as gateway:
        yield gateway

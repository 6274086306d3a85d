"""What the chart's alerts and dashboards ask for is what the real server exports (tests/helm checks the queries)."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from tests.stack.conftest import Server

_RECORDED = Path(__file__).parents[1] / "helm/exported/triton.txt"


@pytest.mark.triton
def test_triton_exports_every_recorded_metric(server: Server):
    page = httpx.get(server.triton_metrics_url).text
    families = set(re.findall(r"^# TYPE (\S+)", page, re.MULTILINE))

    assert set(_RECORDED.read_text().split()) <= families

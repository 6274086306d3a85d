"""The OpenAPI document against the real process: whatever it allows or forbids is answered as it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.gateway.processes import Gateway, running_gateway
from tests.gateway.wire import chat_body, post

from autoglm_gateway.openapi import document

DOCUMENT = document()
CASES = [
    (path, method, mode)
    for path, operations in DOCUMENT["paths"].items()
    for method in operations
    for mode in GenerationMode
    if method == "post" or mode is GenerationMode.POSITIVE  # nothing in a GET can be wrong
]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = {"get": 1, "post": 15}
ANSWER_TIMEOUT_S = 20.0


@pytest.fixture(scope="module")
def strict_gateway() -> Iterator[Gateway]:
    """No media from the network: whatever URL the fuzz makes up, nobody out there is asked."""
    with running_gateway("--fake", "--media-hosts", "") as gateway:
        yield gateway


@pytest.mark.parametrize(("path", "method", "mode"), CASES, ids=lambda part: getattr(part, "value", part))
def test_answers_are_as_the_document_says(
    strict_gateway: Gateway, path: str, method: str, mode: GenerationMode
) -> None:
    operation = schemathesis.openapi.from_dict(DOCUMENT)[path][method.upper()]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES[method],
        derandomize=True,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate),  # a failure is shown as it was found: shrinking would take minutes
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: schemathesis.Case) -> None:
        response = case.call(base_url=f"http://{strict_gateway.http}", timeout=ANSWER_TIMEOUT_S)
        case.validate_response(response, checks=CHECKS)

    ask()


def test_the_fuzz_left_nothing_behind(strict_gateway: Gateway) -> None:
    """Runs last: no request hangs, and no memory was lost to what was sent."""
    strict_gateway.wait_for_metric("vllm:num_requests_running", 0)
    strict_gateway.wait_for_metric("vllm:num_requests_waiting", 0)
    assert post(strict_gateway, chat_body()).status_code == 200
    resident = int(Path(f"/proc/{strict_gateway.process.pid}/statm").read_text().split()[1]) * 4096
    assert resident < 300 << 20

"""What the gateway asks of a Triton that went silent (gateway/autoglm_gateway/hang_watch.py), of the real models."""

from __future__ import annotations

import pytest
from tests.stack.conftest import Server

from autoglm_gateway.hang_watch import probe_request
from autoglm_gateway.tracing import Tracing
from autoglm_gateway.triton_backend import TritonBackend
from autoglm_protocol.events import Finished

pytestmark = pytest.mark.triton


async def test_the_probe_is_one_token_of_the_decoder(server: Server) -> None:
    backend = TritonBackend(server.triton_grpc_url, tracing=Tracing(None))
    events = [event async for event in backend.generate(probe_request())]
    await backend.close()
    assert isinstance(events[-1], Finished)
    assert events[-1].usage.completion_tokens == 1

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from PIL import Image
from tests.client.openai_server import OpenAIServer, serve_openai


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with serve_openai() as server:
        yield server


@pytest.fixture
def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 80), "white").save(buffer, "PNG")
    return buffer.getvalue()

"""/v1/responses through OpenAI's SDK: the events of a stream and the fields that have no effect."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from tests.gateway.processes import MODEL, Gateway


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.v1, api_key="none") as client:
        yield client


def test_the_sdks_own_stream_helper_assembles_the_response(client: openai.OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="Hi") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert final.output_text == client.responses.create(model=MODEL, input="Hi").output_text


def test_platform_fields_are_accepted(client: openai.OpenAI) -> None:
    response = client.responses.create(
        model=MODEL, input="Hi", user="me", metadata={"run": "1"}, store=True, extra_body={"priority": 1}
    )
    assert response.status == "completed"
    assert response.store is False  # nothing is stored, whatever was asked


def test_a_conversation_goes_on_by_sending_it_again(client: openai.OpenAI) -> None:
    first = client.responses.create(model=MODEL, input="Hi")
    answered = [{"role": "user", "content": "Hi"}, *(item.model_dump() for item in first.output)]
    second = client.responses.create(model=MODEL, input=[*answered, {"role": "user", "content": "Go on"}])  # type: ignore[list-item]
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens

"""/v1/responses through OpenAI's SDK: the events of a stream and the fields that have no effect."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseIncludable, ResponseOutputText
from tests.gateway.processes import MODEL, Gateway, running_gateway

LOGPROBS: list[ResponseIncludable] = ["message.output_text.logprobs"]


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.v1, api_key="none") as client:
        yield client


def text_part(response: Response) -> ResponseOutputText:
    """The one piece of text of the one message."""
    (message,) = (item for item in response.output if item.type == "message")
    (part,) = message.content
    assert part.type == "output_text"
    return part


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


def test_what_changes_nothing_is_repeated(client: openai.OpenAI) -> None:
    response = client.responses.create(
        model=MODEL,
        input="Hi",
        include=["reasoning.encrypted_content", "web_search_call.action.sources"],
        max_tool_calls=3,
        parallel_tool_calls=False,
        prompt_cache_key="k",
        safety_identifier="s",
        service_tier="auto",
        text={"verbosity": "medium"},
        truncation="disabled",
    )
    assert (response.max_tool_calls, response.parallel_tool_calls) == (3, False)
    assert (response.prompt_cache_key, response.safety_identifier) == ("k", "s")
    assert (response.service_tier, response.truncation, response.background) == ("default", "disabled", False)
    assert response.completed_at is not None
    assert response.top_logprobs == 0


def test_who_asks_for_a_summary_gets_the_thought(client: openai.OpenAI) -> None:
    response = client.responses.create(model=MODEL, input="Hi", reasoning={"effort": "low", "summary": "auto"})
    thought, message = response.output
    assert thought.type == "reasoning"
    assert thought.content is not None
    assert thought.content[0].text.startswith("The settings page")
    assert message.type == "message"
    assert "<think>" not in response.output_text


def test_log_probabilities_stand_beside_the_text(client: openai.OpenAI) -> None:
    response = client.responses.create(model=MODEL, input="Hi", include=LOGPROBS, top_logprobs=2)
    part = text_part(response)
    assert part.logprobs
    assert "".join(entry.token for entry in part.logprobs) == part.text
    assert bytes(part.logprobs[0].bytes) == part.logprobs[0].token.encode()
    assert part.logprobs[0].top_logprobs[0].logprob == part.logprobs[0].logprob
    assert response.top_logprobs == 2


def test_nobody_gets_log_probabilities_unasked(client: openai.OpenAI) -> None:
    assert text_part(client.responses.create(model=MODEL, input="Hi")).logprobs == []


def test_alternatives_are_log_probabilities_too(client: openai.OpenAI) -> None:
    assert text_part(client.responses.create(model=MODEL, input="Hi", top_logprobs=1)).logprobs


def test_without_top_logprobs_there_are_no_alternatives(client: openai.OpenAI) -> None:
    part = text_part(client.responses.create(model=MODEL, input="Hi", include=LOGPROBS))
    assert part.logprobs
    assert all(entry.top_logprobs == [] for entry in part.logprobs)


def test_each_delta_has_the_log_probabilities_of_its_tokens(client: openai.OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="Hi", include=LOGPROBS) as stream:
        events = list(stream)
        final = text_part(stream.get_final_response())
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert all("".join(entry.token for entry in event.logprobs) == event.delta for event in deltas)
    assert final.logprobs
    (done,) = (event for event in events if event.type == "response.output_text.done")
    told = [entry.token for event in deltas for entry in event.logprobs]
    assert told == [entry.token for entry in done.logprobs] == [entry.token for entry in final.logprobs]


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_of_the_thought_are_not_the_messages(client: openai.OpenAI, stream: bool) -> None:
    extra = {"return_reasoning": True}
    ask: Any = partial(client.responses.create, model=MODEL, input="Hi", include=LOGPROBS, extra_body=extra)
    response = list(ask(stream=True))[-1].response if stream else ask()
    part = text_part(response)
    assert part.logprobs
    assert "".join(entry.token for entry in part.logprobs) == part.text == '<answer>do(action="Tap", element=[499,312])'


def test_a_message_beside_a_call_has_its_own_tokens_only() -> None:
    says = 'I look.<tool_call>{"name": "weather", "arguments": {}}</tool_call>'
    with (
        running_gateway("--fake", "--fake-text", says) as gateway,
        openai.OpenAI(base_url=gateway.v1, api_key="none") as client,
    ):
        tool: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}
        part = text_part(client.responses.create(model=MODEL, input="Rain?", include=LOGPROBS, tools=[tool]))
    assert part.logprobs
    assert "".join(entry.token for entry in part.logprobs) == part.text == "I look."


def test_a_conversation_goes_on_by_sending_it_again(client: openai.OpenAI) -> None:
    first = client.responses.create(model=MODEL, input="Hi")
    answered = [{"role": "user", "content": "Hi"}, *(item.model_dump() for item in first.output)]
    second = client.responses.create(model=MODEL, input=[*answered, {"role": "user", "content": "Go on"}])  # type: ignore[list-item]
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens

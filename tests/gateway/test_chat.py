"""POST /v1/chat/completions: what a well-behaved client sees."""

from __future__ import annotations

import json

import httpx
import pytest
from tests.gateway.processes import Gateway, running_gateway
from tests.gateway.wire import chat_body, delta_text, post, stream_chunks, stream_lines, usage_of

from autoglm_gateway.fake_backend import FakeKnobs

TEXT = FakeKnobs().fake_text


def test_an_answer_has_text_usage_finish_reason_and_plan(gateway: Gateway):
    answer = post(gateway, chat_body()).json()

    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["model"] == "autoglm-phone-9b"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": TEXT, "refusal": None}
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
    assert answer["dynamic_graph"]["num_layers"] == 24


def test_a_stream_says_the_same_as_the_whole_answer(gateway: Gateway):
    """Check 2."""
    whole = post(gateway, chat_body(temperature=0)).json()
    chunks = stream_chunks(gateway, chat_body(temperature=0))

    assert delta_text(chunks) == whole["choices"][0]["message"]["content"]
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    assert [reason for reason in reasons if reason is not None] == ["stop"]
    assert chunks[-1]["dynamic_graph"] == whole["dynamic_graph"]


def test_every_chunk_has_the_same_id_time_and_model_and_the_first_the_role(gateway: Gateway):
    """Check 3."""
    chunks = stream_chunks(gateway, chat_body())

    assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert all("role" not in choice["delta"] for chunk in chunks[1:] for choice in chunk["choices"])


def test_include_usage_adds_one_last_chunk_and_null_to_the_others(gateway: Gateway):
    """Check 4."""
    whole = post(gateway, chat_body()).json()
    *others, last = stream_chunks(gateway, chat_body(stream_options={"include_usage": True}))

    assert last["choices"] == []
    assert last["usage"] == whole["usage"]
    assert all(chunk["usage"] is None for chunk in others)


def test_without_include_usage_no_chunk_has_usage(gateway: Gateway):
    """Check 4."""
    assert all("usage" not in chunk for chunk in stream_chunks(gateway, chat_body()))


def test_continuous_usage_rises_with_every_chunk(gateway: Gateway):
    """Check 5."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = stream_chunks(gateway, chat_body(max_tokens=5, stream_options=options))

    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert counts[-1] == 5


@pytest.mark.parametrize("limit", [{"max_tokens": 1}, {"max_completion_tokens": 1}])
def test_one_token_ends_with_length(gateway: Gateway, limit: dict[str, int]):
    """Check 7."""
    answer = post(gateway, chat_body(**limit)).json()

    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 1


def test_max_completion_tokens_wins_over_max_tokens(gateway: Gateway):
    """Check 7."""
    answer = post(gateway, chat_body(max_tokens=9, max_completion_tokens=2)).json()

    assert answer["usage"]["completion_tokens"] == 2


def test_without_a_limit_the_answer_is_whole(gateway: Gateway):
    """Check 7."""
    answer = post(gateway, chat_body()).json()

    assert answer["usage"]["completion_tokens"] > 16
    assert answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("stop", ["</think>", ["never", "</think>"]])
def test_stop_as_text_or_list_cuts_before_the_stop_string(gateway: Gateway, stop: object):
    content = post(gateway, chat_body(stop=stop)).json()["choices"][0]["message"]["content"]

    assert content == TEXT.partition("</think>")[0]


def test_several_choices_each_finish_once(gateway: Gateway):
    body = chat_body(n=2, max_tokens=3)
    whole = post(gateway, body).json()
    chunks = stream_chunks(gateway, body)

    for choice in whole["choices"]:
        assert delta_text(chunks, index=choice["index"]) == choice["message"]["content"]
    finished = [choice["index"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    assert finished == [0, 1]


def test_logprobs_come_with_every_token(gateway: Gateway):
    answer = post(gateway, chat_body(logprobs=True, top_logprobs=1, max_tokens=2)).json()

    content = answer["choices"][0]["logprobs"]["content"]
    assert len(content) == 2
    assert bytes(content[0]["bytes"]).decode() == content[0]["token"]
    assert content[0]["top_logprobs"][0]["logprob"] == content[0]["logprob"]


def test_reasoning_stays_in_the_content_unless_asked_for(gateway: Gateway):
    message = post(gateway, chat_body()).json()["choices"][0]["message"]

    assert message["content"].startswith("<think>")
    assert "reasoning_content" not in message


def test_split_reasoning_is_the_same_text_streamed_and_whole(gateway: Gateway):
    """Check 23."""
    message = post(gateway, chat_body(return_reasoning=True)).json()["choices"][0]["message"]
    chunks = stream_chunks(gateway, chat_body(return_reasoning=True))

    assert f"<think>{message['reasoning_content']}</think>{message['content']}" == TEXT
    assert delta_text(chunks, "reasoning_content") == message["reasoning_content"]
    assert delta_text(chunks) == message["content"]


def test_emoji_and_chinese_arrive_unharmed():
    """Check 27."""
    text = "点击😀设置完"
    with running_gateway("--fake", environment={"AUTOGLM_GATEWAY_FAKE_TEXT": text}) as gateway:
        chunks = stream_chunks(gateway, chat_body())
        assert delta_text(chunks) == text
        assert not any("\ufffd" in delta_text([chunk]) for chunk in chunks)


def test_content_type_comes_before_the_first_token():
    """Check 3."""
    with running_gateway("--fake", "--fake-ttft-s", "3600", "--drain-s", "0.1") as gateway:  # noqa: SIM117
        with httpx.stream("POST", f"{gateway.v1}/chat/completions", json=chat_body(stream=True)) as response:
            assert response.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize("role", ["developer", "system", "assistant", "tool"])
def test_every_role_takes_text_as_a_list(gateway: Gateway, role: str):
    """Check 21."""
    body = chat_body()
    body["messages"].insert(0, {"role": role, "name": "n", "content": [{"type": "text", "text": "Be brief."}]})

    assert post(gateway, body).status_code == 200


def test_an_assistant_turn_may_hold_tool_calls_alone(gateway: Gateway):
    """Check 21."""
    call = {"id": "1", "type": "function", "function": {"name": "tap", "arguments": "{}"}}
    body = chat_body()
    body["messages"] += [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "done"},
        {"role": "user", "content": "and now?"},
    ]

    assert post(gateway, body).status_code == 200


def test_consecutive_user_turns_count_together(gateway: Gateway):
    body = chat_body("one")
    body["messages"].append({"role": "user", "content": "two"})

    assert (
        usage_of(post(gateway, body))["prompt_tokens"] == 2 * usage_of(post(gateway, chat_body("one")))["prompt_tokens"]
    )


@pytest.mark.parametrize("depth", [6, 12, 18, 24, "full", "auto", None])
def test_depth_reaches_the_plan(gateway: Gateway, depth: int | str | None):
    plan = post(gateway, chat_body(depth=depth)).json()["dynamic_graph"]

    assert plan["depth"] == (depth if isinstance(depth, int) else 24)


def test_unknown_fields_are_accepted_and_counted(gateway: Gateway):
    """Check 12."""
    before = gateway.metric("autoglm_gateway_unknown_fields_total")

    assert post(gateway, chat_body(no_such_field=1)).status_code == 200
    assert gateway.metric("autoglm_gateway_unknown_fields_total") == before + 1


def test_fields_that_ask_for_what_happens_anyway_are_accepted(gateway: Gateway):
    harmless = {"response_format": {"type": "text"}, "tool_choice": "none", "user": "u", "store": False, "tools": None}

    assert post(gateway, chat_body(**harmless)).status_code == 200


def test_a_failure_in_the_middle_is_one_error_event_and_then_the_end():
    """Check 29."""
    with running_gateway("--fake", "--fake-fail-at-token", "3") as gateway:
        *_, error, end = stream_lines(gateway, chat_body())
        assert end == "[DONE]"
        assert json.loads(error)["error"]["code"] == "internal_error"
        assert post(gateway, chat_body()).status_code == 500
        assert gateway.metric("autoglm_gateway_request_failures_total") == 2


def test_a_failure_before_the_first_event_has_its_own_status():
    """Check 29."""
    with running_gateway("--fake", "--fake-fail-at-token", "0") as gateway:
        assert post(gateway, chat_body(stream=True)).status_code == 500

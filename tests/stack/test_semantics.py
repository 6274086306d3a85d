"""OpenAI semantics that only the real model can show: forced calls, token counts, transcripts, stops."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
import soundfile
from tests.stack.conftest import EXAMPLES, MODEL, Server, audio_part, image_part

PHONE = [{"type": "phone_actions"}]


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.http_url}/v1", api_key="EMPTY") as client:
        yield client


def mp3_of(name: str) -> bytes:
    samples, rate = soundfile.read(EXAMPLES / name)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="MP3")
    return buffer.getvalue()


def choice_of(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]


def calls_of(choice: dict[str, Any]) -> list[tuple[str, Any]]:
    calls = [call["function"] for call in choice["message"].get("tool_calls") or []]
    return [(call["name"], json.loads(call["arguments"])) for call in calls]


def test_the_models_action_is_a_call(server: Server) -> None:
    choice = choice_of(server.chat("Open WeChat", tools=PHONE))
    assert calls_of(choice) == [("launch", {"app": "WeChat"})]
    assert choice["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("name", ["tap", "swipe", "finish"])
def test_a_named_call_is_forced_whatever_was_asked(server: Server, name: str) -> None:
    """Check 25."""
    tools = httpx.get(f"{server.http_url}/v1/phone_actions").json()["data"]
    chosen = {"type": "function", "function": {"name": name}}
    choice = choice_of(server.chat("What is the capital of France?", tools=tools, tool_choice=chosen))
    assert [called for called, _ in calls_of(choice)] == [name]


def test_a_required_call_is_one_of_those_offered(server: Server) -> None:
    tools = httpx.get(f"{server.http_url}/v1/phone_actions").json()["data"]
    offered = [tool for tool in tools if tool["function"]["name"] in ("back", "home")]
    choice = choice_of(server.chat("Open WeChat", tools=offered, tool_choice="required", temperature=1, seed=1))
    assert [called for called, _ in calls_of(choice)] in (["back"], ["home"])


def test_a_response_calls_and_goes_on_with_the_next_screenshot(client: openai.OpenAI) -> None:
    tools: Any = PHONE
    history: list[Any] = [{"role": "user", "content": "Open WeChat"}]
    first = client.responses.create(model=MODEL, input=history, tools=tools, temperature=0)
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert (call.name, json.loads(call.arguments)) == ("launch", {"app": "WeChat"})
    screen = {"type": "input_image", "image_url": image_part("home.png")["image_url"]["url"]}
    history += [*first.output, {"type": "function_call_output", "call_id": call.call_id, "output": [screen]}]
    home: Any = {"type": "function", "name": "home"}
    second = client.responses.create(model=MODEL, input=history, tools=tools, tool_choice=home, temperature=0)
    assert [item.name for item in second.output if item.type == "function_call"] == ["home"]
    assert second.usage is not None
    assert second.usage.input_tokens_details.to_dict()["image_tokens"]


def test_functions_need_a_template_with_a_place_for_them(server: Server) -> None:
    weather = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    response = server.chat("Hi", tools=[weather])
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "tools"


def test_an_agent_loop_over_tool_results(client: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": "Go back"}]
    tools: Any = PHONE
    first = client.chat.completions.create(model=MODEL, messages=messages, tools=tools, temperature=0, max_tokens=80)
    message = first.choices[0].message
    assert message.tool_calls
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id}
    messages += [message.model_dump(exclude_none=True), {**result, "content": [image_part("home.png")]}]
    second = client.chat.completions.create(model=MODEL, messages=messages, tools=tools, temperature=0, max_tokens=80)
    assert second.usage is not None
    assert (second.usage.model_extra or second.usage.to_dict())["prompt_tokens_details"]["image_tokens"]


def test_a_counted_prompt_is_the_prompt_that_is_charged(server: Server) -> None:
    messages = [{"role": "user", "content": [image_part("home.png"), {"type": "text", "text": "打开 Bluetooth"}]}]
    body = {"model": MODEL, "messages": messages}
    counted = httpx.post(f"{server.http_url}/tokenize", json=body, timeout=60).json()
    usage = server.chat(messages[0]["content"], max_tokens=1).json()["usage"]
    assert counted["count"] == len(counted["tokens"]) == usage["prompt_tokens"]
    assert counted["max_model_len"] > counted["count"]


def test_tokens_are_those_of_the_checkpoint_both_ways(server: Server) -> None:
    text = "打开 WeChat, <think> twice"
    tokens = httpx.post(f"{server.http_url}/tokenize", json={"prompt": text}).json()["tokens"]
    back = httpx.post(f"{server.http_url}/detokenize", json={"tokens": tokens}).json()
    assert back == {"prompt": text}
    spelled = httpx.post(f"{server.http_url}/tokenize", json={"prompt": text, "return_token_strs": True}).json()
    assert spelled["tokens"] == tokens
    assert "<think>" in spelled["token_strs"]
    assert "ĠWe" in "".join(spelled["token_strs"])


@pytest.mark.parametrize(("name", "heard"), [("go_back.wav", "go back"), ("open_wechat_zh.wav", "打开微信")])
def test_a_command_is_written_down(client: openai.OpenAI, name: str, heard: str) -> None:
    """Check 20."""
    answer = client.audio.transcriptions.create(model=MODEL, file=EXAMPLES / name)
    assert answer.text == heard
    assert answer.usage is not None


def test_wav_mp3_and_url_are_heard_alike(server: Server) -> None:
    """Check 19."""
    wav, mp3 = (EXAMPLES / "go_back.wav").read_bytes(), mp3_of("go_back.wav")
    part = audio_part(wav)
    url = f"data:audio/wav;base64,{part['input_audio']['data']}"
    contents = ([part], [audio_part(mp3, "mp3")], [{"type": "audio_url", "audio_url": {"url": url}}])
    answers = [choice_of(server.chat(content))["message"]["content"] for content in contents]
    assert len(set(answers)) == 1


def test_thinking_can_be_turned_off(server: Server) -> None:
    """Check 22."""
    thought = choice_of(server.chat("Open WeChat"))["message"]["content"]
    direct = choice_of(server.chat("Open WeChat", chat_template_kwargs={"enable_thinking": False}))
    assert thought.startswith("<think>")
    assert "<think>" not in direct["message"]["content"]
    refused = server.chat("Open WeChat", chat_template="{{ messages }}")
    assert refused.json()["error"]["param"] == "chat_template"


@pytest.mark.parametrize("bound", [{"thinking_token_budget": 5}, {"max_reasoning_steps": 0}])
def test_a_thought_stays_within_its_bound(server: Server, bound: dict[str, int]) -> None:
    answer = server.chat("Open WeChat", **bound).json()
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] <= 5
    assert "</think>" in answer["choices"][0]["message"]["content"]
    assert "<answer>" in answer["choices"][0]["message"]["content"]


def test_every_way_to_end_an_answer(server: Server) -> None:
    """Check 26."""
    whole = choice_of(server.chat("Open WeChat"))["message"]["content"]
    stopped = choice_of(server.chat("Open WeChat", stop=["</think>"]))
    assert stopped["message"]["content"] == whole.partition("</think>")[0]
    token = httpx.post(f"{server.http_url}/tokenize", json={"prompt": "</think>"}).json()["tokens"][0]
    by_token = choice_of(server.chat("Open WeChat", stop_token_ids=[token]))
    assert by_token["message"]["content"].removesuffix("</think>") == whole.partition("</think>")[0]
    longer = server.chat("Open WeChat", ignore_eos=True, max_tokens=70).json()
    assert longer["usage"]["completion_tokens"] == 70
    least = server.chat("Open WeChat", min_tokens=60).json()
    assert least["usage"]["completion_tokens"] >= 60


def test_a_stop_string_over_several_tokens_is_never_streamed(server: Server, client: openai.OpenAI) -> None:
    """Check 26."""
    whole = choice_of(server.chat("Open WeChat"))["message"]["content"]
    stop = 'h", app='
    assert stop in whole
    tokens = httpx.post(f"{server.http_url}/tokenize", json={"prompt": stop}).json()["tokens"]
    assert len(tokens) > 2
    chunks = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Open WeChat"}], temperature=0, stop=[stop], stream=True
    )
    choices = [chunk.choices[0] for chunk in chunks]
    assert "".join(choice.delta.content or "" for choice in choices) == whole.partition(stop)[0]
    assert choices[-1].finish_reason == "stop"


def test_a_seed_repeats_itself(server: Server) -> None:
    """Check 26."""
    answers = {choice_of(server.chat("Hi", temperature=1.2, seed=5))["message"]["content"] for _ in range(2)}
    assert len(answers) == 1

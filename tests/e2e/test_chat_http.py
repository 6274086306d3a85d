"""The OpenAI-compatible endpoint on the real server: gateway, Triton, the whole ensemble."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import soundfile
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from PIL import Image
from tests.e2e.raw_triton import eventually, inference_counts
from tests.e2e.stack import Stack, running_stack
from tests.tiny_checkpoint import EXITS

pytestmark = pytest.mark.triton


def body(content: Any, **fields: Any) -> dict[str, Any]:
    fixed = {"temperature": 0, "max_tokens": 24, "ignore_eos": True}
    return {"model": "autoglm-phone-9b", "messages": [{"role": "user", "content": content}], **fixed, **fields}


def ask(stack: Stack, content: Any, **fields: Any) -> dict[str, Any]:
    answer = httpx.post(f"{stack.http}/v1/chat/completions", json=body(content, **fields), timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(stack: Stack, payload: dict[str, Any]) -> tuple[int, str, str]:
    answer = httpx.post(f"{stack.http}/v1/chat/completions", json=payload, timeout=60)
    error = answer.json()["error"]
    return answer.status_code, error["param"] or "", error["message"]


def png(color: str = "red", size: tuple[int, int] = (90, 160)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, format="PNG")
    return out.getvalue()


def picture(data: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(data).decode()}"}}


def sound(data: bytes) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": "wav"}}


def wav() -> bytes:
    out = io.BytesIO()
    soundfile.write(out, np.zeros(16000, dtype=np.float32), 16000, format="WAV")
    return out.getvalue()


def claims_40000_pixels_a_side() -> bytes:
    header = b"IHDR" + struct.pack(">II", 40_000, 40_000) + png()[24:29]
    return png()[:12] + header + struct.pack(">I", zlib.crc32(header)) + png()[33:]


@contextlib.contextmanager
def streamed(stack: Stack, payload: dict[str, Any]) -> Iterator[Iterator[dict[str, Any]]]:
    url = f"{stack.http}/v1/chat/completions"
    with httpx.stream("POST", url, json={**payload, "stream": True}, timeout=60) as answer:
        lines = (line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: "))
        yield (json.loads(line) for line in lines if line != "[DONE]")


def test_streamed_and_whole_answers_are_the_same_text(stack: Stack) -> None:
    whole = ask(stack, "The same?", max_tokens=60)["choices"][0]["message"]["content"]
    with streamed(stack, body("The same?", max_tokens=60)) as chunks:
        parts = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"]]
    assert "".join(parts) == whole
    assert len(parts) > 3


def test_the_answer_says_what_ran(stack: Stack) -> None:
    answer = ask(stack, [picture(png()), {"type": "text", "text": "tap"}, sound(wav())], depth=12)
    graph, usage = answer["dynamic_graph"], answer["usage"]
    assert (graph["depth"], graph["layers_run"]) == (12, {"12": 24})
    assert sorted([*graph["encoders_run"], *graph["encoders_skipped"]]) == ["speech", "vision"]
    details = usage["prompt_tokens_details"]
    assert min(details["image_tokens"], details["audio_tokens"], details["text_tokens"]) > 0
    assert usage["completion_tokens"] == 24


def test_text_requests_call_no_encoder(stack: Stack) -> None:
    before = inference_counts(stack.triton_grpc)
    ask(stack, "Only words")
    after = inference_counts(stack.triton_grpc)
    assert {model for model in after if after[model] != before[model]} == {"autoglm_phone", "text_decoder"}


def test_two_pictures_and_consecutive_user_turns_are_taken(stack: Stack) -> None:
    turns = [
        {"role": "system", "content": "Act."},
        {"role": "user", "content": [picture(png("red")), {"type": "text", "text": "task"}]},
        {"role": "user", "content": [picture(png("blue")), {"type": "text", "text": "** Screen Info **"}]},
    ]
    one = ask(stack, [picture(png("red"))])["usage"]["prompt_tokens_details"]["image_tokens"]
    answer = httpx.post(f"{stack.http}/v1/chat/completions", json={**body("x"), "messages": turns}, timeout=60)
    assert answer.json()["usage"]["prompt_tokens_details"]["image_tokens"] == 2 * one


def test_a_stop_string_ends_the_answer(stack: Stack) -> None:
    whole = ask(stack, "Stop where?", max_tokens=60)["choices"][0]["message"]["content"]
    stop = next(whole[i : i + 2] for i in range(4, len(whole)) if whole[i : i + 2].isprintable())
    choice = ask(stack, "Stop where?", max_tokens=60, stop=[stop])["choices"][0]
    assert choice["message"]["content"] == whole[: whole.index(stop)]
    assert choice["finish_reason"] == "stop"


def test_a_client_that_disconnects_frees_its_slot_within_a_second(stack: Stack) -> None:
    def is_idle() -> bool:
        return stack.metric("autoglm_requests_running") == 0

    with streamed(stack, body("long", max_tokens=900)) as chunks:
        next(chunk for chunk in chunks if chunk["choices"] and chunk["choices"][0]["delta"].get("content"))
        assert eventually(lambda: not is_idle(), within_s=5)
    left_s = time.monotonic()
    assert eventually(is_idle, within_s=5)
    assert time.monotonic() - left_s < 1.0


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": []}, "messages"),
        ({"depth": 7}, "depth"),
        ({"exit": "certified"}, "exit"),
        ({"temperature": 2.5}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": [{"role": "user", "content": "word " * 2000}]}, "messages"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_fields_are_refused_by_name(stack: Stack, change: dict[str, Any], param: str) -> None:
    status, named, _ = refused(stack, {**body("x"), **change})
    assert (status, named.split("[")[0]) == (400, param)


@pytest.mark.parametrize(
    "part",
    [
        pytest.param({"type": "image_url", "image_url": {"url": "data:image/png;base64,@@@"}}, id="bad base64"),
        pytest.param(picture(png(size=(400, 400))[:600]), id="truncated picture"),
        pytest.param(picture(claims_40000_pixels_a_side()), id="huge picture"),
        pytest.param(picture(b"hello"), id="no picture"),
        pytest.param(sound(b"this is text, not sound"), id="no sound"),
    ],
)
def test_bad_media_is_refused_by_its_place_and_the_server_lives_on(stack: Stack, part: dict[str, Any]) -> None:
    status, param, _ = refused(stack, body([{"type": "text", "text": "x"}, part]))
    assert 400 <= status < 500
    assert param.startswith("messages[0].content[1]")
    ask(stack, "still there?", max_tokens=2)


def test_an_unknown_model_is_not_found(stack: Stack) -> None:
    assert refused(stack, {**body("x"), "model": "gpt-9"})[0] == 404


def test_openai_sdk_streams_with_usage(stack: Stack) -> None:
    with openai.OpenAI(base_url=f"{stack.http}/v1", api_key="EMPTY", max_retries=0) as client:
        chunks = list(
            client.chat.completions.create(
                model="autoglm-phone-9b",
                messages=[{"role": "user", "content": "Hi"}],
                max_tokens=5,
                temperature=0.0,
                top_p=0.85,
                frequency_penalty=0.2,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    assert chunks[-1].usage is not None
    assert 1 <= chunks[-1].usage.completion_tokens <= 5


def test_langchain_streams(stack: Stack) -> None:
    model = ChatOpenAI(
        model="autoglm-phone-9b",
        base_url=f"{stack.http}/v1",
        api_key="EMPTY",  # pyright: ignore[reportArgumentType]
        streaming=True,
        temperature=0.0,
        max_completion_tokens=8,
        extra_body={"enable_thinking": True, "return_reasoning": True, "ignore_eos": True},
    )
    assert "".join(str(chunk.content) for chunk in model.stream([HumanMessage("Hi")])) != ""


def test_dynamic_graph_off_runs_every_encoder_at_full_depth(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENABLE_DYNAMIC_GRAPH", "False")
    with running_stack(tiny_checkpoint, tmp_path) as stack:
        before = inference_counts(stack.triton_grpc)
        graph = ask(stack, "Go back", depth=EXITS[0])["dynamic_graph"]
        after = inference_counts(stack.triton_grpc)
        assert (graph["enabled"], graph["depth"]) == (False, 24)
        assert [after[m] - before[m] for m in ("vision_encoder", "speech_encoder")] == [1, 1]


def test_a_damaged_checkpoint_keeps_the_server_from_starting_and_names_the_file(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for part in tiny_checkpoint.iterdir():
        (damaged / part.name).symlink_to(part)
    (damaged / "model.safetensors").unlink()
    (damaged / "model.safetensors").write_bytes((tiny_checkpoint / "model.safetensors").read_bytes()[:50_000])
    with (
        pytest.raises(AssertionError, match=r"model\.safetensors: damaged or truncated"),
        running_stack(damaged, tmp_path / "logs"),
    ):
        pass

"""Raw Triton clients against the real server."""

from __future__ import annotations

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
from PIL import Image
from tests.e2e.raw_triton import (
    RawStream,
    chat_tensors,
    end_of,
    events,
    eventually,
    infer,
    inference_counts,
    text_of,
)
from tests.e2e.stack import Stack
from tests.tiny_checkpoint import HIDDEN
from tritonclient.utils import InferenceServerException

from autoglm_protocol.errors import InvalidRequestError, from_wire_text
from autoglm_protocol.events import Started, TokenDelta
from autoglm_protocol.sampling import SamplingParams
from autoglm_protocol.tensors import (
    AUTOGLM_PHONE,
    SPEECH_ENCODER,
    TEXT_DECODER,
    VISION_ENCODER,
    bytes_tensor,
    json_tensor,
)
from autoglm_protocol.wire import DecodeRequest, cancel_to_tensors, decode_to_tensors, event_from_tensors

pytestmark = pytest.mark.triton


def png(color: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (90, 60), color).save(out, format="PNG")
    return out.getvalue()


def wav() -> bytes:
    out = io.BytesIO()
    soundfile.write(out, np.zeros(8000, dtype=np.float32), 16000, format="WAV")
    return out.getvalue()


def is_idle(stack: Stack) -> bool:
    return stack.metric("autoglm_requests_running") == stack.metric("autoglm_requests_waiting") == 0


def test_a_text_request_streams_an_answer(stack: Stack) -> None:
    stream = events(stack.triton_grpc, chat_tensors("Hi"))
    assert isinstance(stream[0], Started)
    assert sum(len(event.token_ids) for event in stream if isinstance(event, TokenDelta)) == 16
    assert end_of(stream).usage.completion_tokens == 16


def test_text_requests_never_call_an_encoder(stack: Stack) -> None:
    before = inference_counts(stack.triton_grpc)
    skips = stack.metric("autoglm_encoder_skips_total", encoder="vision")
    end_of(events(stack.triton_grpc, chat_tensors("Only text")))
    after = inference_counts(stack.triton_grpc)
    grown = {model: after[model] - before[model] for model in after if after[model] != before[model]}
    assert set(grown) == {"autoglm_phone", "text_decoder"}
    assert stack.metric("autoglm_encoder_skips_total", encoder="vision") == skips + 1


def test_a_picture_calls_vision_once_and_a_clip_calls_speech_once(stack: Stack) -> None:
    before = inference_counts(stack.triton_grpc)
    tensors = {**chat_tensors("tap"), "images": bytes_tensor([png("blue")]), "audios": bytes_tensor([wav()])}
    end = end_of(events(stack.triton_grpc, tensors))
    after = inference_counts(stack.triton_grpc)
    assert [after[m] - before[m] for m in ("vision_encoder", "speech_encoder")] == [1, 1]
    assert min(end.usage.image_tokens, end.usage.audio_tokens) > 0


def test_a_picture_seen_before_comes_from_the_cache(stack: Stack) -> None:
    content = [{"type": "image", "index": 0}, {"type": "text", "text": "again"}]
    tensors = {**chat_tensors(content), "images": bytes_tensor([png("green")])}
    first = events(stack.triton_grpc, tensors)
    before = inference_counts(stack.triton_grpc)
    second = events(stack.triton_grpc, tensors)
    assert inference_counts(stack.triton_grpc)["vision_encoder"] == before["vision_encoder"]
    assert end_of(second).dynamic_graph["embedding_cache_hits"] == 1
    assert text_of(first) == text_of(second)


@pytest.mark.parametrize("depth", [6, 24])
def test_depth_runs_exactly_its_layers(stack: Stack, depth: int) -> None:
    counted = stack.metric("autoglm_exit_layer_total", depth=str(depth))
    end = end_of(events(stack.triton_grpc, chat_tensors(f"deep {depth}", options={"depth": depth})))
    graph, usage = end.dynamic_graph, end.usage
    assert graph["depth"] == depth
    assert graph["layers_run"] == {str(depth): 16}
    assert graph["layer_steps"] == depth * (usage.prompt_tokens - usage.cached_tokens + usage.completion_tokens - 1)
    assert stack.metric("autoglm_exit_layer_total", depth=str(depth)) == counted + 1


def test_temperature_0_gives_the_same_text_twice(stack: Stack) -> None:
    first, second = (text_of(events(stack.triton_grpc, chat_tensors("Same", max_tokens=40))) for _ in range(2))
    assert first == second


def test_the_plan_is_printed(stack: Stack) -> None:
    end_of(events(stack.triton_grpc, chat_tensors("print", options={"depth": 12})))
    line = "[DYNAMIC GRAPH] Activating shallow inference path (12 layers)"
    assert eventually(lambda: any(shown.endswith(line) for shown in stack.lines), within_s=5)


def test_vision_encoder_answers_alone(stack: Stack) -> None:
    tensors = {"patches": np.zeros((24, 1176), np.float32), "grids": np.array([[4, 4], [2, 4]], np.int32)}
    assert infer(stack.triton_grpc, VISION_ENCODER, tensors)["embeddings"].shape == (6, HIDDEN)


def test_speech_encoder_answers_alone(stack: Stack) -> None:
    tensors = {"mel": np.zeros((50, 80), np.float32)}
    assert infer(stack.triton_grpc, SPEECH_ENCODER, tensors)["embeddings"].shape == (7, HIDDEN)


def test_text_decoder_answers_alone(stack: Stack) -> None:
    request = DecodeRequest(
        tag="alone", prompt_ids=np.arange(8, dtype=np.int32), sampling=SamplingParams(temperature=0.0, max_tokens=5)
    )
    with RawStream(stack.triton_grpc, TEXT_DECODER.model, decode_to_tensors(request)) as stream:
        answers = [event_from_tensors(answer) for answer in stream]
    assert 1 <= end_of(answers).usage.completion_tokens <= 5


@pytest.mark.parametrize(
    ("tensors", "name"),
    [
        ({}, "messages"),
        ({"messages": np.zeros(1, np.int32)}, "messages"),
        ({"messages": bytes_tensor([b"[]", b"[]"])}, "messages"),
        ({"messages": bytes_tensor([b"no json"])}, "messages"),
        ({**chat_tensors("x"), "sampling": np.zeros(1, np.float32)}, "sampling"),
        ({**chat_tensors("x"), "images": np.zeros(1, np.float32)}, "images"),
        ({**chat_tensors("x"), "options": json_tensor({"depth": 7})}, "depth"),
        ({**chat_tensors("x"), "sampling": json_tensor({"temperature": 9})}, "temperature"),
    ],
    ids=str,
)
def test_bad_tensors_of_autoglm_phone_are_named(stack: Stack, tensors: dict[str, np.ndarray], name: str) -> None:
    with pytest.raises(InferenceServerException, match=name):
        events(stack.triton_grpc, tensors)


@pytest.mark.parametrize(
    ("tensors", "name"),
    [
        ({"grids": np.array([[2, 2]], np.int32)}, "patches"),
        ({"patches": np.zeros((4, 1176), np.float32)}, "grids"),
        ({"patches": np.zeros((4, 1176), np.int32), "grids": np.array([[2, 2]], np.int32)}, "patches"),
        ({"patches": np.zeros(4, np.float32), "grids": np.array([[2, 2]], np.int32)}, "patches"),
        ({"patches": np.zeros((4, 7), np.float32), "grids": np.array([[2, 2]], np.int32)}, "patches"),
        ({"patches": np.zeros((4, 1176), np.float32), "grids": np.array([[2, 2, 1]], np.int32)}, "grids"),
        ({"patches": np.zeros((4, 1176), np.float32), "grids": np.array([[1, 4]], np.int32)}, "grids"),
        ({"patches": np.zeros((4, 1176), np.float32), "grids": np.array([[2, 4]], np.int32)}, "patches"),
        ({"patches": np.full((4, 1176), np.nan, np.float32), "grids": np.array([[2, 2]], np.int32)}, "patches"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_tensors_of_the_vision_encoder_are_named(stack: Stack, tensors: dict[str, np.ndarray], name: str) -> None:
    with pytest.raises(InferenceServerException, match=name):
        infer(stack.triton_grpc, VISION_ENCODER, tensors)


@pytest.mark.parametrize(
    "mel", [np.zeros((50, 81), np.float32), np.zeros((50, 80), np.int32), np.zeros(80, np.float32)], ids=str
)
def test_bad_tensors_of_the_speech_encoder_are_named(stack: Stack, mel: np.ndarray) -> None:
    with pytest.raises(InferenceServerException, match="mel"):
        infer(stack.triton_grpc, SPEECH_ENCODER, {"mel": mel})


@pytest.mark.parametrize(
    ("tensors", "name"),
    [
        ({"tag": bytes_tensor([b"t"])}, "prompt_ids"),
        ({"prompt_ids": np.arange(3, dtype=np.int32)}, "tag"),
        ({"tag": bytes_tensor([b"t"]), "prompt_ids": np.arange(3, dtype=np.int64)}, "prompt_ids"),
        ({"tag": bytes_tensor([b"t"]), "prompt_ids": np.array([99_999], np.int32)}, "prompt_ids"),
        ({"tag": bytes_tensor([b"t"]), "prompt_ids": np.arange(3, dtype=np.int32), "plan": json_tensor({})}, "plan"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_tensors_of_the_text_decoder_are_named(stack: Stack, tensors: dict[str, np.ndarray], name: str) -> None:
    with (
        pytest.raises(InferenceServerException, match=name),
        RawStream(stack.triton_grpc, TEXT_DECODER.model, tensors) as stream,
    ):
        list(stream)


def test_a_refusal_crosses_triton_word_for_word(stack: Stack) -> None:
    with pytest.raises(InferenceServerException) as caught:
        events(stack.triton_grpc, chat_tensors("x", options={"depth": 7}))
    error = from_wire_text(caught.value.message())
    assert isinstance(error, InvalidRequestError)
    assert (error.param, error.message) == ("depth", 'depth is 7, must be "auto", "full" or one of 6, 12, 18, 24')


def test_a_cancelled_stream_frees_its_slot_within_a_second(stack: Stack) -> None:
    cancelled = stack.metric("autoglm_requests_total", outcome="cancelled")
    with RawStream(stack.triton_grpc, AUTOGLM_PHONE.model, chat_tensors("long", max_tokens=900)) as stream:
        next(answer for answer in stream if len(answer["token_ids"]))
        assert eventually(lambda: not is_idle(stack), within_s=5)
        started_s = time.monotonic()
        stream.cancel()
        assert eventually(lambda: is_idle(stack), within_s=5)
        assert time.monotonic() - started_s < 1.0
    assert eventually(lambda: stack.metric("autoglm_requests_total", outcome="cancelled") == cancelled + 1, within_s=2)


def test_a_control_request_ends_a_raw_decoder_stream(stack: Stack) -> None:
    request = DecodeRequest(
        tag="to be dropped",
        prompt_ids=np.arange(8, dtype=np.int32),
        sampling=SamplingParams(temperature=0.0, max_tokens=900, ignore_eos=True),
    )
    with RawStream(stack.triton_grpc, TEXT_DECODER.model, decode_to_tensors(request)) as stream:
        answers = iter(stream)
        next(answers)
        with RawStream(stack.triton_grpc, TEXT_DECODER.model, cancel_to_tensors("to be dropped")) as control:
            assert list(control) == []
        kinds = [type(event_from_tensors(answer)).__name__ for answer in answers]
    assert kinds[-1] == "Cancelled"


def test_a_tag_in_flight_cannot_be_taken_again(stack: Stack) -> None:
    request = DecodeRequest(
        tag="twice",
        prompt_ids=np.arange(8, dtype=np.int32),
        sampling=SamplingParams(temperature=0.0, max_tokens=900, ignore_eos=True),
    )
    with RawStream(stack.triton_grpc, TEXT_DECODER.model, decode_to_tensors(request)) as first:
        next(iter(first))
        with (
            pytest.raises(InferenceServerException, match="tag"),
            RawStream(stack.triton_grpc, TEXT_DECODER.model, decode_to_tensors(request)) as second,
        ):
            list(second)
    assert eventually(lambda: is_idle(stack), within_s=5)


def test_32_concurrent_streams_finish_and_the_gauges_return_to_zero(stack: Stack) -> None:
    together = threading.Barrier(32)

    def one(index: int) -> int:
        together.wait()
        return end_of(events(stack.triton_grpc, chat_tensors(f"stream {index}", max_tokens=32))).usage.completion_tokens

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(one, range(32))) == [32] * 32
    assert eventually(lambda: is_idle(stack), within_s=5)

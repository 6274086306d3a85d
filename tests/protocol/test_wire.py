from __future__ import annotations

import numpy as np
import pytest

from autoglm_protocol.chat import (
    AudioPart,
    ChatOptions,
    ChatRequest,
    ImagePart,
    Message,
    Role,
    Task,
    TaskKind,
    TextPart,
    ToolCall,
)
from autoglm_protocol.errors import InvalidRequestError, UnavailableError
from autoglm_protocol.events import (
    Cancelled,
    ChoiceFinished,
    Failed,
    Finished,
    FinishReason,
    Started,
    TokenDelta,
    TokenLogprob,
    Usage,
)
from autoglm_protocol.plan import ExecutionPlan, ExitMode
from autoglm_protocol.sampling import SamplingParams
from autoglm_protocol.tensors import AUTOGLM_PHONE, TEXT_DECODER, VISION_ENCODER, bytes_tensor, json_tensor
from autoglm_protocol.wire import (
    DecodeRequest,
    chat_from_tensors,
    chat_to_tensors,
    decode_from_tensors,
    decode_to_tensors,
    event_from_tensors,
    event_to_tensors,
)


def test_a_request_with_media_survives_the_wire() -> None:
    request = ChatRequest(
        request_id="r",
        model="m",
        messages=(
            Message(role=Role.SYSTEM, parts=(TextPart(text="be brief"),)),
            Message(
                role=Role.USER,
                parts=(
                    ImagePart(data=b"\x00png\x00", detail="low"),
                    TextPart(text="点击"),
                    AudioPart(data=b"RIFF", format="wav"),
                ),
            ),
        ),
        sampling=SamplingParams(temperature=0.0, stop=("\n",)),
        options=ChatOptions(depth=6, enable_thinking=False),
    )
    tensors = chat_to_tensors(request)
    AUTOGLM_PHONE.check_inputs(tensors)
    assert chat_from_tensors(tensors, request_id="r", model="m") == request


def test_media_without_parts_go_before_the_last_user_text() -> None:
    tensors = {
        "messages": json_tensor(
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
        ),
        "images": bytes_tensor([b"png"]),
    }
    request = chat_from_tensors(tensors, request_id="r", model="m")
    assert request.messages[2].parts == (ImagePart(data=b"png"), TextPart(text="c"))
    assert request.messages[0].parts == (TextPart(text="a"),)


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("hi", "messages"),
        ([{"role": "robot", "content": "a"}], "messages[0].role"),
        ([{"role": "user", "content": 3}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "image", "index": 2}]}], "messages[0].content[0].index"),
        ([{"role": "user", "content": [{"type": "video"}]}], "messages[0].content[0]"),
    ],
)
def test_a_malformed_message_names_its_place(messages: object, param: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        chat_from_tensors({"messages": json_tensor(messages)}, request_id="r", model="m")
    assert refusal.value.param == param


def test_broken_json_names_the_tensor() -> None:
    with pytest.raises(InvalidRequestError, match="sampling"):
        chat_from_tensors(
            {"messages": json_tensor([{"role": "user", "content": "a"}]), "sampling": bytes_tensor([b"{"])},
            request_id="r",
            model="m",
        )


@pytest.mark.parametrize(
    "event",
    [
        Started(usage=Usage(prompt_tokens=3), dynamic_graph={"depth": 6}),
        TokenDelta(text="é", token_ids=(1, 2), index=1),
        TokenDelta(text="", token_ids=(1, 2), layers=(6, 24)),
        TokenDelta(text="é!", token_ids=(1, 2, 3), layers=(6, 24, 6), chars=(0, 1, 1)),
        TokenDelta(
            text="",
            token_ids=(7,),
            logprobs=(
                TokenLogprob(
                    token_id=7, token="\ufffd", raw=b"\xe4", logprob=-0.5, top=((7, "\ufffd", b"\xe4", -0.5),)
                ),
            ),
        ),
        ChoiceFinished(index=1, finish_reason=FinishReason.LENGTH),
        Finished(finish_reason=FinishReason.STOP, usage=Usage(completion_tokens=2), dynamic_graph={}),
        Cancelled(),
        Cancelled(usage=Usage(completion_tokens=2), dynamic_graph={"layer_steps": 48}),
    ],
)
def test_every_event_survives_the_wire(event: object) -> None:
    assert event_from_tensors(event_to_tensors(event)) == event  # type: ignore[arg-type]


def test_a_decode_request_survives_the_wire() -> None:
    plan = ExecutionPlan(
        enabled=True,
        run_vision=True,
        run_speech=False,
        num_layers=24,
        depth=6,
        exit_mode=ExitMode.FIXED,
        reason="asked",
    )
    request = DecodeRequest(
        tag="t",
        prompt_ids=np.array([1, 2, 2], dtype=np.int32),
        image_grids=((1, 2),),
        embeddings_MD=np.ones((2, 4), dtype=np.float32),
        media_hashes=(b"\x01",),
        plan=plan,
        priority=2,
    )
    tensors = decode_to_tensors(request)
    TEXT_DECODER.check_inputs(tensors)
    back = decode_from_tensors(tensors)
    np.testing.assert_array_equal(back.prompt_ids, request.prompt_ids)
    np.testing.assert_array_equal(back.embeddings_MD, request.embeddings_MD)
    assert (back.tag, back.image_grids, back.media_hashes, back.plan, back.priority) == (
        "t",
        ((1, 2),),
        (b"\x01",),
        plan,
        2,
    )


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        ({"grids": np.zeros((1, 2), np.int32)}, "patches is missing"),
        ({"patches": np.zeros((4, 6), np.float64), "grids": np.zeros((1, 2), np.int32)}, "patches has type float64"),
        ({"patches": np.zeros((4, 6), np.float32), "grids": np.zeros((1, 3), np.int32)}, "grids has shape"),
    ],
)
def test_a_wrong_tensor_is_named(tensors: dict[str, np.ndarray], complaint: str) -> None:
    with pytest.raises(InvalidRequestError, match=complaint):
        VISION_ENCODER.check_inputs(tensors)


def test_calls_and_their_results_survive_the_wire() -> None:
    call = ToolCall(id="c", name="weather", arguments='{"city": "Rom"}')
    request = ChatRequest(
        request_id="r",
        model="m",
        messages=(
            Message(role=Role.ASSISTANT, parts=(), tool_calls=(call,)),
            Message(role=Role.TOOL, parts=(TextPart(text="sunny"),), tool_call_id="c"),
        ),
    )
    assert chat_from_tensors(chat_to_tensors(request), request_id="r", model="m") == request


@pytest.mark.parametrize(
    "task",
    [Task(kind=TaskKind.TOKENIZE, text="a"), Task(kind=TaskKind.DETOKENIZE, token_ids=(1, 2))],
)
def test_a_task_without_messages_survives_the_wire(task: Task) -> None:
    request = ChatRequest(request_id="r", model="m", messages=(), task=task)
    tensors = chat_to_tensors(request)
    AUTOGLM_PHONE.check_inputs(tensors)
    assert chat_from_tensors(tensors, request_id="r", model="m") == request


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        ({"kind": "sing"}, "task.kind"),
        ({"kind": "tokenize", "text": 1}, "task.text"),
        ({"kind": "detokenize", "token_ids": [True]}, "task.token_ids"),
        ({"kind": "transcribe"}, "messages"),
    ],
)
def test_a_wrong_task_is_refused_by_name(raw: object, param: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        chat_from_tensors({"messages": json_tensor([]), "task": json_tensor(raw)}, request_id="r", model="m")
    assert refused.value.param == param


def test_a_failure_after_other_events_survives_the_wire() -> None:
    event = event_from_tensors(event_to_tensors(Failed(error=UnavailableError("a rank died"))))
    assert isinstance(event, Failed)
    assert isinstance(event.error, UnavailableError)
    assert str(event.error) == "a rank died"

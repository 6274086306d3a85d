"""The pipeline over real services in one process, on a random checkpoint."""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from tests.tiny_checkpoint import write_checkpoint

from autoglm_backend.bls.embedding_cache import EmbeddingCache
from autoglm_backend.bls.media import MediaReader
from autoglm_backend.bls.pipeline import Pipeline, RequestHandle
from autoglm_backend.bls.planner import Deployment, load_checkpoint_facts
from autoglm_backend.bls.stages import LocalStages
from autoglm_backend.encoders.speech import SpeechService
from autoglm_backend.encoders.vision import VisionService
from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.service import DecoderService
from autoglm_backend.models.config import load_model_config, load_speech_config
from autoglm_backend.preprocess.chat_template import load_chat_template
from autoglm_backend.preprocess.image import load_image_config
from autoglm_protocol.chat import (
    AudioPart,
    ChatOptions,
    ChatRequest,
    ImagePart,
    Message,
    Part,
    Role,
    Task,
    TaskKind,
    TextPart,
)
from autoglm_protocol.errors import InvalidRequestError, UnavailableError
from autoglm_protocol.events import (
    Cancelled,
    ChoiceFinished,
    Failed,
    Finished,
    FinishReason,
    Started,
    StreamEvent,
    TokenDelta,
)
from autoglm_protocol.sampling import SamplingParams
from autoglm_protocol.wire import DecodeRequest


@dataclass
class Notes:
    """An observer that remembers."""

    lines: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def log(self, line: str) -> None:
        self.lines.append(line)

    log_failure = log

    def encoder_ran(self, encoder: str) -> None:
        self.counts[f"{encoder} ran"] += 1

    def encoder_skipped(self, encoder: str) -> None:
        self.counts[f"{encoder} skipped"] += 1

    def exited_at(self, depth: int) -> None:
        self.counts[f"depth {depth}"] += 1

    def cache_hit(self) -> None:
        self.counts["hit"] += 1

    def ended(self, outcome: str) -> None:
        self.counts[outcome] += 1


class World:
    """Real services; each pipeline has its own cache and observer."""

    def __init__(self, directory: Path) -> None:
        self.directory = write_checkpoint(directory)
        self.decoder = DecoderService.from_checkpoint(directory, EngineOptions(device="cpu", threads=1))
        self.vision = VisionService.from_checkpoint(directory, "cpu")
        self.speech = SpeechService.from_checkpoint(directory, "cpu")
        self.executor = ThreadPoolExecutor(4)

    def stages(self) -> LocalStages:
        return LocalStages(self.vision, self.speech, self.decoder)

    def pipeline(self, stages: Any = None, **deployment: Any) -> tuple[Pipeline, Notes]:
        config, notes = load_model_config(self.directory), Notes()
        template = load_chat_template(self.directory, config)
        speech = load_speech_config(self.directory / "speech" / "speech_config.json")
        pipeline = Pipeline(
            template=template,
            tokens=template.tokenizer.token_table(config.eos_token_ids),
            reader=MediaReader(load_image_config(self.directory), speech, EmbeddingCache(1 << 20)),
            stages=stages or self.stages(),
            checkpoint=load_checkpoint_facts(self.directory, config.text.num_layers),
            deployment=Deployment(**deployment),
            context_tokens=self.decoder.context_tokens,
            executor=self.executor,
            observer=notes,
        )
        return pipeline, notes


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("tiny"))
    yield world
    world.decoder.shutdown()
    world.executor.shutdown()


def request(*parts: Part | str, options: ChatOptions | None = None, **sampling: Any) -> ChatRequest:
    given = {"temperature": 0.0, "max_tokens": 12, "ignore_eos": True, **sampling}
    content = tuple(TextPart(text=part) if isinstance(part, str) else part for part in parts)
    return ChatRequest(
        request_id="r",
        model="m",
        messages=(Message(role=Role.USER, parts=content),),
        sampling=SamplingParams(**given),
        options=options or ChatOptions(),
    )


def run(pipeline: Pipeline, chat: ChatRequest) -> list[StreamEvent]:
    return list(pipeline.run(lambda: chat, RequestHandle()))


def text_of(events: list[StreamEvent], index: int = 0) -> str:
    return "".join(e.text for e in events if isinstance(e, TokenDelta) and e.index == index)


def ids_of(events: list[StreamEvent], index: int = 0) -> list[int]:
    return [i for e in events if isinstance(e, TokenDelta) and e.index == index for i in e.token_ids]


def finished(events: list[StreamEvent]) -> Finished:
    assert isinstance(events[-1], Finished), events[-1]
    return events[-1]


def picture(color: str = "red") -> ImagePart:
    out = io.BytesIO()
    Image.new("RGB", (90, 60), color).save(out, format="PNG")
    return ImagePart(data=out.getvalue())


def clip() -> AudioPart:
    out = io.BytesIO()
    soundfile.write(out, np.zeros(8000, dtype=np.float32), 16000, format="WAV")
    return AudioPart(data=out.getvalue(), format="wav")


def test_a_text_request_streams_from_started_to_finished(world: World) -> None:
    pipeline, notes = world.pipeline()
    events = run(pipeline, request("Is it on?"))
    assert isinstance(events[0], Started)
    end = finished(events)
    assert end.finish_reason is FinishReason.LENGTH
    assert (end.usage.completion_tokens, len(ids_of(events))) == (12, 12)
    assert end.usage.prompt_tokens == events[0].usage.prompt_tokens > 0
    assert (end.dynamic_graph["encoders_run"], end.dynamic_graph["encoders_skipped"]) == ([], ["vision", "speech"])
    assert notes.counts == {"vision skipped": 1, "speech skipped": 1, "depth 24": 1, "finished": 1}
    assert notes.lines == [
        "[DYNAMIC GRAPH] Activating full inference path (24 layers)",
        "[DYNAMIC GRAPH] Skipping ViT encoder (no image)",
        "[DYNAMIC GRAPH] Skipping speech encoder (no audio)",
    ]


def test_text_equals_a_decode_of_all_ids(world: World) -> None:
    pipeline, _ = world.pipeline()
    events = run(pipeline, request("Is it on?", max_tokens=60))
    assert bytes_of(world, ids_of(events)).decode(errors="replace").startswith(text_of(events))


def bytes_of(world: World, ids: list[int]) -> bytes:
    config = load_model_config(world.directory)
    table = load_chat_template(world.directory, config).tokenizer.token_table(config.eos_token_ids)
    return b"".join(map(table.visible_bytes, ids))


@pytest.mark.parametrize("depth", [6, 12, 18, 24])
def test_each_depth_runs_exactly_its_layers(world: World, depth: int) -> None:
    pipeline, notes = world.pipeline()
    end = finished(run(pipeline, request(f"at depth {depth}", options=ChatOptions(depth=depth))))
    assert end.dynamic_graph["depth"] == depth
    num_run = end.usage.prompt_tokens - end.usage.cached_tokens + end.usage.completion_tokens - 1
    assert end.dynamic_graph["layer_steps"] == depth * num_run
    assert notes.counts[f"depth {depth}"] == 1


def test_picture_and_clip_become_placeholders_and_are_counted(world: World) -> None:
    pipeline, notes = world.pipeline()
    end = finished(run(pipeline, request(picture(), clip(), "tap it")))
    assert end.usage.image_tokens > 0
    assert end.usage.audio_tokens == 7  # 50 mel frames, 25 encoder frames, four to a token
    assert sorted(end.dynamic_graph["encoders_run"]) == ["speech", "vision"]
    assert (notes.counts["vision ran"], notes.counts["speech ran"]) == (1, 1)


def test_the_picture_decides_the_answer(world: World) -> None:
    pipeline, _ = world.pipeline()
    answers = {color: ids_of(run(pipeline, request(picture(color), "x"))) for color in ("black", "white")}
    assert answers["black"] != answers["white"]


def test_a_picture_seen_before_is_not_encoded_again(world: World) -> None:
    pipeline, notes = world.pipeline()
    first = run(pipeline, request(picture(), "x"))
    second = run(pipeline, request(picture(), "x"))
    assert ids_of(first) == ids_of(second)
    assert (notes.counts["vision ran"], notes.counts["hit"]) == (1, 1)
    graph = finished(second).dynamic_graph
    assert (graph["embedding_cache_hits"], graph["encoders_run"]) == (1, [])


def test_dynamic_graph_off_runs_both_encoders_on_nothing(world: World) -> None:
    pipeline, notes = world.pipeline(dynamic_graph=False)
    end = finished(run(pipeline, request("Go back", options=ChatOptions(depth=6))))
    assert (notes.counts["vision ran"], notes.counts["speech ran"]) == (1, 1)
    assert (end.dynamic_graph["enabled"], end.dynamic_graph["depth"]) == (False, 24)


def layers_of(events: list[StreamEvent]) -> list[int]:
    return [layers for e in events if isinstance(e, TokenDelta) for layers in e.layers or ()]


@pytest.mark.parametrize("options", [{"depth": 12}, {"exit": "lossless"}])
def test_each_token_says_the_layers_it_needed_when_asked(world: World, options: dict[str, Any]) -> None:
    pipeline, _ = world.pipeline()
    events = run(pipeline, request("手 Is it on?", options=ChatOptions(return_token_layers=True, **options)))
    assert len(layers_of(events)) == len(ids_of(events)) == 12
    counted = Counter(map(str, layers_of(events)))
    assert finished(events).dynamic_graph["layers_run"] == counted
    tokens = [token for e in events if isinstance(e, TokenDelta) for token in e.token_layers]
    assert text_of(events).startswith("".join(token.text for token in tokens))


def test_nobody_who_does_not_ask_gets_layers(world: World) -> None:
    pipeline, _ = world.pipeline()
    assert layers_of(run(pipeline, request("Is it on?"))) == []


def test_an_answer_ended_by_a_stop_string_reports_what_ran(world: World) -> None:
    pipeline, _ = world.pipeline()
    whole = text_of(run(pipeline, request("Is it on?", max_tokens=60)))
    stop = next(whole[i : i + 2] for i in range(8, len(whole) - 2) if whole[i : i + 2].isprintable())
    end = finished(run(pipeline, request("Is it on?", max_tokens=900, stop=(stop,))))
    assert end.finish_reason is FinishReason.STOP
    assert end.dynamic_graph["layer_steps"] >= 24 * end.usage.completion_tokens
    assert end.dynamic_graph["kv_bytes"] > 0
    assert sum(end.dynamic_graph["layers_run"].values()) >= end.usage.completion_tokens


def test_a_stop_string_ends_the_answer_and_frees_the_decoder(world: World) -> None:
    pipeline, _ = world.pipeline()
    whole = text_of(run(pipeline, request("Is it on?", max_tokens=60)))
    stop = next(whole[i : i + 2] for i in range(8, len(whole) - 2) if whole[i : i + 2].isprintable())
    events = run(pipeline, request("Is it on?", max_tokens=900, stop=(stop,)))
    assert text_of(events) == whole[: whole.index(stop)]
    end = finished(events)
    assert end.finish_reason is FinishReason.STOP
    assert end.usage.completion_tokens == len(ids_of(events)) < 60
    assert (world.decoder.stats().num_running, world.decoder.stats().num_waiting) == (0, 0)


def test_several_choices_each_end_once(world: World) -> None:
    pipeline, _ = world.pipeline()
    events = run(pipeline, request("Is it on?", n=3, temperature=1.0, seed=1))
    assert sorted(e.index for e in events if isinstance(e, ChoiceFinished)) == [0, 1, 2]
    assert finished(events).usage.completion_tokens == 36


def test_logprobs_carry_their_tokens_text(world: World) -> None:
    pipeline, _ = world.pipeline()
    events = run(pipeline, request("Is it on?", logprobs=True, top_logprobs=2))
    entries = [entry for e in events if isinstance(e, TokenDelta) for entry in e.logprobs or ()]
    assert [entry.token_id for entry in entries] == ids_of(events)
    assert b"".join(entry.raw for entry in entries) == bytes_of(world, ids_of(events))
    assert all(len(entry.top) == 2 for entry in entries)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"options": ChatOptions(depth=7)}, "depth"),
        ({"options": ChatOptions(enable_thinking="no")}, "enable_thinking"),  # pyright: ignore[reportArgumentType]
        ({"messages": (Message(role=Role.USER, parts=(ImagePart(data=b"no"),)),)}, "messages[0].content[0]"),
        ({"messages": (Message(role=Role.USER, parts=(AudioPart(data=b"no"),)),)}, "messages[0].content[0]"),
        ({"messages": (Message(role=Role.USER, parts=(TextPart(text="x" * 2000),)),)}, "messages"),
    ],
)
def test_a_refusal_is_the_only_event_and_names_the_field(world: World, change: dict[str, Any], param: str) -> None:
    pipeline, notes = world.pipeline()
    events = run(pipeline, replace(request("x"), **change))
    assert len(events) == 1
    assert isinstance(events[0], Failed)
    assert isinstance(events[0].error, InvalidRequestError)
    assert events[0].error.param == param
    assert notes.counts["refused"] == 1


def test_a_bug_is_logged_and_says_nothing_of_the_inside(world: World) -> None:
    pipeline, notes = world.pipeline()

    def read() -> ChatRequest:
        raise KeyError("secret")

    (event,) = pipeline.run(read, RequestHandle())
    assert isinstance(event, Failed)
    assert (event.error.http_status, "secret" in event.error.message) == (500, False)
    assert "secret" in notes.lines[-1]
    assert notes.counts == {"failed": 1}


def test_a_cancel_during_decoding_ends_in_cancelled(world: World) -> None:
    pipeline, notes = world.pipeline()
    handle, events = RequestHandle(), []
    for event in pipeline.run(lambda: request("go on", max_tokens=900), handle):
        events.append(event)
        if isinstance(event, TokenDelta):
            handle.is_cancelled.set()
            world.decoder.abort(handle.tag)
    assert isinstance(events[-1], Cancelled)
    assert notes.counts["cancelled"] == 1
    assert handle.is_over.is_set()


def test_a_cancel_while_encoding_never_reaches_the_decoder(world: World) -> None:
    handle = RequestHandle()

    class Slow(LocalStages):
        def encode_image(self, patches_PK: Any, grid: tuple[int, int]) -> Any:
            handle.is_cancelled.set()
            return super().encode_image(patches_PK, grid)

        def decode(self, request: DecodeRequest) -> Iterator[StreamEvent]:
            raise AssertionError("the decoder was called")

    pipeline, notes = world.pipeline(Slow(world.vision, world.speech, world.decoder))
    assert list(pipeline.run(lambda: request(picture(), "x"), handle)) == [Cancelled()]
    assert notes.counts["cancelled"] == 1


def test_vision_and_speech_work_at_the_same_time(world: World) -> None:
    both = threading.Barrier(2, timeout=20)

    class Together(LocalStages):
        def encode_image(self, patches_PK: Any, grid: tuple[int, int]) -> Any:
            both.wait()
            return super().encode_image(patches_PK, grid)

        def encode_audio(self, mel_FC: Any) -> Any:
            both.wait()
            return super().encode_audio(mel_FC)

    pipeline, _ = world.pipeline(Together(world.vision, world.speech, world.decoder))
    finished(run(pipeline, request(picture(), clip(), "x")))


def test_an_encoders_error_is_the_requests(world: World) -> None:
    class Down(LocalStages):
        def encode_audio(self, mel_FC: Any) -> Any:
            raise UnavailableError("gone")

    pipeline, notes = world.pipeline(Down(world.vision, world.speech, world.decoder))
    events = run(pipeline, request(picture(), clip(), "x"))
    assert [type(event) for event in events] == [Failed]
    assert notes.counts["failed"] == 1


def side_task(task: Task, *parts: Part | str) -> ChatRequest:
    return replace(request(*parts), task=task)


def test_tokenizing_a_chat_gives_the_prompt_that_the_decoder_would_see(world: World) -> None:
    pipeline, notes = world.pipeline()
    events = run(pipeline, side_task(Task(kind=TaskKind.TOKENIZE), picture(), "Open it"))
    started = next(event for event in run(pipeline, request(picture(), "Open it")) if isinstance(event, Started))
    assert isinstance(events[1], TokenDelta)
    assert len(events[1].token_ids) == started.usage.prompt_tokens
    assert finished(events).dynamic_graph == {"max_model_len": world.decoder.context_tokens}
    assert notes.counts["vision ran"] == 1  # by the real request alone


def test_text_survives_tokenizing_and_back(world: World) -> None:
    pipeline, _ = world.pipeline()
    text = "打开 WeChat 🙂<|user|>"
    there = run(pipeline, replace(side_task(Task(kind=TaskKind.TOKENIZE, text=text)), messages=()))
    assert isinstance(there[1], TokenDelta)
    back = run(pipeline, side_task(Task(kind=TaskKind.DETOKENIZE, token_ids=there[1].token_ids)))
    assert isinstance(back[1], TokenDelta)
    assert back[1].text == text


def test_an_id_beyond_the_vocabulary_is_refused(world: World) -> None:
    pipeline, _ = world.pipeline()
    (event,) = run(pipeline, side_task(Task(kind=TaskKind.DETOKENIZE, token_ids=(0, 1 << 20))))
    assert isinstance(event, Failed)
    assert event.error.param == "tokens[1]"


def test_an_encoder_that_spells_nothing_refuses_to_transcribe(world: World) -> None:
    pipeline, _ = world.pipeline()
    (event,) = run(pipeline, side_task(Task(kind=TaskKind.TRANSCRIBE), clip()))
    assert isinstance(event, Failed)
    assert event.error.code == "unsupported_endpoint"

"""Grammars and bad words in the running engine: the same answer however it is batched, guessed and interrupted."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.tiny_checkpoint import EXITS, IDS, NUM_LAYERS, write_checkpoint

from autoglm_backend.engine.options import EngineOptions
from autoglm_backend.engine.service import DecoderService
from autoglm_backend.engine.speculation import DraftController, DraftPlan
from autoglm_backend.preprocess.tokenizer import Tokenizer, load_tokenizer
from autoglm_protocol.actions import parse_action, split_reply
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.events import Failed, Finished, FinishReason, StreamEvent, TokenDelta
from autoglm_protocol.grammar import Grammar, GrammarKind
from autoglm_protocol.plan import ExecutionPlan, ExitMode
from autoglm_protocol.sampling import SamplingParams
from autoglm_protocol.wire import DecodeRequest

ACTION = Grammar(kind=GrammarKind.AUTOGLM_ACTION)
SCHEMA = Grammar.of_schema(
    {
        "type": "object",
        "properties": {"kind": {"enum": ["a", "bb"]}, "sizes": {"type": "array", "items": {"type": "integer"}}},
        "required": ["kind", "sizes"],
        "additionalProperties": False,
    }
)
ANSWER = "<|user|>Hi<|assistant|>\n<think></think>"
THINKS = "<|user|>Hi<|assistant|>\n<think>"


class Stream:
    """Collects one request's events and waits for its terminal one."""

    def __init__(self) -> None:
        self.events: list[StreamEvent] = []
        self._over = threading.Event()

    def __call__(self, event: StreamEvent) -> None:
        self.events.append(event)
        if isinstance(event, Finished | Failed):
            self._over.set()

    def ids(self, index: int = 0) -> list[int]:
        self.end()
        deltas = [event for event in self.events if isinstance(event, TokenDelta) and event.index == index]
        return [token for event in deltas for token in event.token_ids]

    def end(self) -> FinishReason:
        assert self._over.wait(120)
        event = self.events[-1]
        assert isinstance(event, Finished)
        return event.finish_reason


class ThreeDrafts(DraftController):
    def choose(self, num_rows: int) -> DraftPlan:
        return DraftPlan(exit_depth=EXITS[0] if num_rows else NUM_LAYERS, num_drafts=3 if num_rows else 0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> Tokenizer:
    return load_tokenizer(checkpoint)


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> Iterator[DecoderService]:
    service = start(checkpoint)
    yield service
    service.shutdown()


def start(checkpoint: Path, **options: object) -> DecoderService:
    # float64: the one-token and the many-token kernels then agree to the last greedy choice
    return DecoderService.from_checkpoint(
        checkpoint,
        EngineOptions(device="cpu", dtype="float64", threads=1, **options),  # type: ignore[arg-type]
    )


def ask(
    engine: DecoderService,
    ids: list[int],
    sampling: SamplingParams,
    exit_mode: ExitMode = ExitMode.FIXED,
    budget: int | None = None,
) -> Stream:
    stream = Stream()
    plan = ExecutionPlan(
        enabled=True,
        run_vision=False,
        run_speech=False,
        num_layers=NUM_LAYERS,
        depth=NUM_LAYERS,
        exit_mode=exit_mode,
        reason="",
        reasoning_budget_tokens=budget,
    )
    tag = f"{id(stream)}"
    engine.add(
        DecodeRequest(tag=tag, prompt_ids=np.array(ids, dtype=np.int32), sampling=sampling, plan=plan),
        stream,
    )
    return stream


MIX = [
    SamplingParams(temperature=0.0, max_tokens=24, grammar=ACTION),
    SamplingParams(temperature=1.0, seed=3, max_tokens=24, grammar=ACTION),
    SamplingParams(temperature=0.9, seed=5, top_p=0.9, max_tokens=20, grammar=SCHEMA, logprobs=True),
    SamplingParams(temperature=0.0, max_tokens=12, bad_words=("a", "t"), ignore_eos=True),
    SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True),
]


def prompts(tokenizer: Tokenizer) -> list[list[int]]:
    return [tokenizer.encode(f"{'Hi ' * i}{ANSWER}") for i in range(len(MIX))]


@pytest.fixture(scope="module")
def alone(engine: DecoderService, tokenizer: Tokenizer) -> list[list[int]]:
    """Each request of MIX by itself, without a guess."""
    return [ask(engine, ids, params).ids() for ids, params in zip(prompts(tokenizer), MIX, strict=True)]


@pytest.mark.parametrize("pressure", [{}, {"kv_cache_tokens": 96, "block_tokens": 4}], ids=["free", "tight"])
def test_drafts_neighbours_and_preemption_change_no_answer(
    checkpoint: Path, tokenizer: Tokenizer, alone: list[list[int]], pressure: dict[str, int]
) -> None:
    service = start(checkpoint, **pressure)
    service._engine._drafts = ThreeDrafts(EXITS, NUM_LAYERS)
    streams = [
        ask(service, ids, params, ExitMode.LOSSLESS) for ids, params in zip(prompts(tokenizer), MIX, strict=True)
    ]
    together = [stream.ids() for stream in streams]
    num_preemptions = service.stats().num_preemptions
    service.shutdown()
    assert together == alone
    assert (num_preemptions > 0) == bool(pressure)


def test_choices_each_follow_the_grammar_on_their_own(engine: DecoderService, tokenizer: Tokenizer) -> None:
    sampling = SamplingParams(temperature=1.2, seed=1, n=3, max_tokens=200, grammar=Grammar.of_choices(["xyz", "xy"]))
    stream = ask(engine, tokenizer.encode(ANSWER), sampling)
    table = tokenizer.token_table()
    texts = {b"".join(map(table.raw_bytes, stream.ids(index)))[:3] for index in range(3)}
    assert texts <= {b"xyz", b"xy", b"xy<"}


def test_a_finished_answer_stops_the_sequence(engine: DecoderService, tokenizer: Tokenizer) -> None:
    sampling = SamplingParams(temperature=0.0, grammar=Grammar.of_choices(["done"]), ignore_eos=True, min_tokens=50)
    stream = ask(engine, tokenizer.encode(ANSWER), sampling)
    assert stream.ids() == tokenizer.encode("done")
    assert stream.end() is FinishReason.STOP


def test_a_thought_is_cut_by_its_budget_and_the_answer_still_matches(
    engine: DecoderService, tokenizer: Tokenizer
) -> None:
    sampling = SamplingParams(temperature=0.0, grammar=Grammar.of_choices(["done"]))
    ids = ask(engine, tokenizer.encode(THINKS), sampling, budget=5).ids()
    assert ids[5:] == [IDS["</think>"], *tokenizer.encode("done")]


def test_random_weights_answer_in_json_and_in_actions(engine: DecoderService, tokenizer: Tokenizer) -> None:
    table = tokenizer.token_table([IDS["<|user|>"]])
    finished = 0
    streams = [
        (grammar, ask(engine, tokenizer.encode(ANSWER), SamplingParams(seed=seed, max_tokens=120, grammar=grammar)))
        for seed in range(4)
        for grammar in (SCHEMA, ACTION)
    ]
    for grammar, stream in streams:
        text = b"".join(map(table.visible_bytes, stream.ids())).decode(errors="ignore")
        if stream.end() is FinishReason.STOP:
            finished += 1
            if grammar is ACTION:
                parse_action(split_reply(text).action_text)
            else:
                assert set(json.loads(text)) == {"kind", "sizes"}
    assert finished


def test_a_bad_word_is_never_said(engine: DecoderService, tokenizer: Tokenizer) -> None:
    pairs = Grammar(kind=GrammarKind.REGEX, value="[ab]{20}")
    sampling = SamplingParams(seed=1, grammar=pairs, bad_words=("aa", "bbb"))
    table = tokenizer.token_table()
    said = b"".join(map(table.raw_bytes, ask(engine, tokenizer.encode(ANSWER), sampling).ids()))
    assert len(said) == 20
    assert b"aa" not in said
    assert b"bbb" not in said


def test_a_bad_grammar_is_refused_at_once(engine: DecoderService, tokenizer: Tokenizer) -> None:
    sampling = SamplingParams(grammar=Grammar(kind=GrammarKind.REGEX, value="(", param="guided_regex"))
    with pytest.raises(InvalidRequestError) as caught:
        ask(engine, tokenizer.encode(ANSWER), sampling)
    assert caught.value.param == "guided_regex"

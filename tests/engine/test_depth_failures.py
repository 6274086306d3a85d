"""What goes wrong in engines with several depths, one test per failure: wrong text, wrong bias, wasted layers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence as Seq
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tests.engine.depth_world import EXITS, Dense, certified_checkpoint, service
from tests.engine.test_engine import Stream, ask, prompt
from tests.random_checkpoint import IMAGE_ID

from autoglm_backend.engine import engine as engine_module
from autoglm_backend.engine.sampler import distribution, process
from autoglm_backend.engine.scheduler import Row
from autoglm_backend.engine.sequence import Prompt, Sequence
from autoglm_backend.engine.service import DecoderService
from autoglm_backend.engine.speculation import DraftController, DraftPlan
from autoglm_protocol.events import ChoiceFinished, Finished, StreamEvent, TokenDelta
from autoglm_protocol.plan import ExitMode
from autoglm_protocol.sampling import SamplingParams

HALF = {1: 0.5, 2: 0.5}
LOSSLESS, CERTIFIED, FIXED = ExitMode.LOSSLESS, ExitMode.CERTIFIED, ExitMode.FIXED
PENALISED = SamplingParams(temperature=0.0, max_tokens=20, frequency_penalty=0.4, presence_penalty=0.3, ignore_eos=True)


class AlwaysDraft(DraftController):
    def __init__(self, exit_depth: int, num_drafts: int) -> None:
        super().__init__(EXITS, 4)
        self._plan = DraftPlan(exit_depth=exit_depth, num_drafts=num_drafts)

    def choose(self, num_rows: int) -> DraftPlan:
        return self._plan if num_rows else self.none


def drafting(directory: Path, exit_depth: int, num_drafts: int, **options: object) -> DecoderService:
    engine = service(directory, shadow_share=0.0, **options)
    engine._engine._drafts = AlwaysDraft(exit_depth, num_drafts)
    return engine


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certified_checkpoint(tmp_path_factory.mktemp("depths"), HALF)


def finished(stream: Stream) -> Finished:
    end = stream.end()
    assert isinstance(end, Finished)
    return end


class AbortAfter(Stream):
    """Aborts its own request after some tokens, from inside the engine's step."""

    def __init__(self, engine: DecoderService, tag: str, num_tokens: int) -> None:
        super().__init__()
        self._engine, self._tag, self._left = engine, tag, num_tokens

    def __call__(self, event: StreamEvent) -> None:
        super().__call__(event)
        if isinstance(event, TokenDelta):
            self._left -= len(event.token_ids)
            if self._left <= 0:
                self._engine.abort(self._tag)


requests = st.lists(
    st.tuples(
        st.sampled_from([(LOSSLESS, 4), (LOSSLESS, 4), (CERTIFIED, 4), (FIXED, 4), (FIXED, 2), (FIXED, 1)]),
        st.integers(0, 3),
        st.integers(1, 18),
        st.integers(1, 24),
        st.sampled_from([None, None, 3, 9]),
    ),
    min_size=2,
    max_size=7,
)
_references: dict[tuple[int, int, ExitMode, int], list[int]] = {}


def reference(dense: Dense, text: int, length: int, mode: ExitMode, depth: int) -> list[int]:
    """24 tokens; worked out once per process."""
    key = (text, length, CERTIFIED if mode is CERTIFIED else FIXED, depth)
    if key not in _references:
        ids = prompt(18, text)[:length]
        if depth < 4:
            _references[key] = dense.fixed(ids, 24, depth)
        else:
            _references[key] = dense.certified(ids, 24, HALF if mode is CERTIFIED else {}).ids
    return _references[key]


@settings(max_examples=8, deadline=None)
@given(
    requests,
    st.sampled_from(EXITS),
    st.integers(1, 6),
    st.sampled_from([{}, {"kv_cache_tokens": 96, "block_tokens": 4}, {"max_step_tokens": 7, "block_tokens": 8}]),
)
def test_random_traffic_gets_the_dense_reference_token_for_token(
    directory: Path,
    wanted: list[tuple[tuple[ExitMode, int], int, int, int, int | None]],
    exit_depth: int,
    num_drafts: int,
    pressure: dict[str, int],
) -> None:
    engine = drafting(directory, exit_depth, num_drafts, **pressure)
    dense = Dense(directory)
    streams: list[tuple[Stream, list[int]]] = []
    for number, ((mode, depth), text, length, max_tokens, abort_after) in enumerate(wanted):
        # Prompts of one text are prefixes of each other, so that the prefix cache is hit at every length.
        ids, tag = prompt(18, text)[:length], f"r{number}"
        stream = Stream() if abort_after is None else AbortAfter(engine, tag, abort_after)
        params = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)
        streams.append((stream, reference(dense, text, length, mode, depth)[:max_tokens]))
        engine.add(ask(tag, ids, depth=depth, exit_mode=mode, sampling=params), stream)
    for stream, expected in streams:
        ids = stream.ids()
        assert ids == (expected if isinstance(stream.end(), Finished) else expected[: len(ids)])
    stats = engine.stats()
    engine.shutdown()
    assert stats.kv_usage == 0.0
    assert stats.involuntary_exits == 0


class LayerCalls:
    """Counts real calls of every layer, and the tokens in them."""

    def __init__(self, engine: DecoderService) -> None:
        self.tokens: list[list[int]] = [[] for _ in range(4)]
        for number, layer in enumerate(engine._engine._runner.spans.decoder.layers):  # type: ignore[attr-defined]
            layer.register_forward_pre_hook(lambda _, args, number=number: self.tokens[number].append(len(args[0])))

    @property
    def layer_steps(self) -> int:
        return sum(map(sum, self.tokens))


def test_deep_layers_are_never_called_for_shallow_requests(directory: Path) -> None:
    engine, stream = service(directory), Stream()
    calls = LayerCalls(engine)
    params = SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True)
    engine.add(ask("a", prompt(9, 1), depth=1, sampling=params), stream)
    stream.end()
    engine.shutdown()
    assert calls.tokens == [[9, 1, 1, 1, 1, 1], [], [], []]


def test_a_drafting_step_runs_shallow_layers_once_per_guess_and_deep_ones_once(directory: Path) -> None:
    engine, stream = drafting(directory, 2, 3, prefix_cache=False), Stream()
    calls = LayerCalls(engine)
    # The bias leaves one possible token, so every guess is right: 1 + 4 tokens, and no room to guess again.
    params = SamplingParams(temperature=0.0, max_tokens=5, allowed_token_ids=(9,))
    engine.add(ask("a", prompt(9, 1), exit_mode=LOSSLESS, sampling=params), stream)
    graph = finished(stream).dynamic_graph
    engine.shutdown()
    assert calls.tokens == [[9, 1, 1, 1, 1], [9, 1, 1, 1, 1], [9, 4], [9, 4]]
    assert graph["layers_run"] == {"2": 3, "4": 2}
    assert graph["layer_steps"] == calls.layer_steps


def test_a_shallow_row_goes_on_while_its_neighbours_draft(directory: Path) -> None:
    engine, shallow, deep = drafting(directory, 2, 3, prefix_cache=False), Stream(), Stream()
    calls = LayerCalls(engine)
    params = SamplingParams(temperature=0.0, max_tokens=5, allowed_token_ids=(9,))
    engine.add(ask("deep", prompt(9, 1), exit_mode=LOSSLESS, sampling=params), deep)
    engine.add(ask("shallow", prompt(9, 2), depth=1, sampling=params), shallow)
    graph = finished(shallow).dynamic_graph
    deep.end()
    engine.shutdown()
    assert graph["layers_run"] == {"1": 5}
    assert graph["layer_steps"] == 9 + 4
    assert graph["drafts_proposed"] == 0
    assert calls.layer_steps == 9 + 4 + 4 * (9 + 4)


def test_a_row_of_middle_depth_drafts_beside_lossless_ones_and_judges_for_itself(directory: Path) -> None:
    engine, middle, deep = drafting(directory, 1, 3, prefix_cache=False), Stream(), Stream()
    params = SamplingParams(temperature=0.0, max_tokens=5, allowed_token_ids=(9,))
    engine.add(ask("deep", prompt(9, 1), exit_mode=LOSSLESS, sampling=replace(params, max_tokens=20)), deep)
    assert deep.first_token.wait(60)
    engine.add(ask("middle", prompt(9, 2), depth=2, sampling=params), middle)
    graph = finished(middle).dynamic_graph
    deep.end()
    judged = engine._engine._drafts._num_judged[1]
    deep_drafts = finished(deep).dynamic_graph["drafts_proposed"]
    engine.shutdown()
    assert graph["layers_run"] == {"1": 3, "2": 2}
    assert graph["layer_steps"] == 2 * (9 + 4)
    assert judged == deep_drafts


def test_mixed_traffic_runs_the_sum_of_what_each_row_asked_for(directory: Path) -> None:
    engine = service(directory, prefix_cache=False)
    calls = LayerCalls(engine)
    streams = [Stream() for _ in range(8)]
    params = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
    for i, stream in enumerate(streams):
        engine.add(ask(f"r{i}", prompt(10, i), depth=(1, 4)[i % 2], sampling=params), stream)
    asked = sum(finished(stream).dynamic_graph["layer_steps"] for stream in streams)
    stats = engine.stats()
    engine.shutdown()
    assert asked == 4 * (1 + 4) * (10 + 11) == calls.layer_steps == stats.layer_steps


def test_memory_of_a_request_shrinks_with_its_depth(directory: Path) -> None:
    engine = service(directory, prefix_cache=False, block_tokens=4)
    used = {}
    for depth in (1, 2, 4):
        stream = Stream()
        engine.add(ask(f"d{depth}", prompt(9, depth), depth=depth), stream)
        used[depth] = finished(stream).dynamic_graph["kv_bytes"]
    stats = engine.stats()
    engine.shutdown()
    # 32 tokens of 2 KV heads of 16 float64 numbers, keys and values, a layer.
    assert used == {depth: depth * 32 * 2 * 2 * 16 * 8 for depth in (1, 2, 4)}
    assert stats.kv_bytes == 0
    assert stats.kv_bytes_peak == used[4]


def test_reservations_follow_the_text_and_never_reach_beyond_its_end(directory: Path) -> None:
    engine, stream = drafting(directory, 1, 6, block_tokens=2, prefix_cache=False), Stream()
    runner, blocks = engine._engine._runner, engine._engine._blocks
    run, trim = runner.run, blocks.trim
    reserved: list[int] = []
    kept: list[tuple[int, int, int]] = []

    def watched_run(rows: Seq[Row], *rest: object) -> object:
        reserved.extend(len(table) for row in rows for table in row.sequence.blocks)
        return run(rows, *rest)

    def watched_trim(sequence: Sequence, num_tokens: int) -> None:
        trim(sequence, num_tokens)
        kept.extend((len(table), sequence.num_history, len(sequence.drafts)) for table in sequence.blocks)

    runner.run, blocks.trim = watched_run, watched_trim  # type: ignore[method-assign]
    params = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
    engine.add(ask("a", prompt(9, 4), exit_mode=LOSSLESS, sampling=params), stream)
    finished(stream)
    usage = engine.stats().kv_usage
    engine.shutdown()
    # Six drafts each step, but no block beyond the last token that is run: 9 of the prompt and 11 of the answer.
    assert max(reserved) == 10
    assert all(owned <= -(-length // 2) and not drafts for owned, length, drafts in kept)
    assert usage == 0.0


@pytest.mark.parametrize("num_right", range(5))
@pytest.mark.parametrize("params", [PENALISED, replace(PENALISED, temperature=0.8, seed=3)], ids=["greedy", "sampled"])
def test_penalties_are_right_at_every_accept_length(
    directory: Path, monkeypatch: pytest.MonkeyPatch, num_right: int, params: SamplingParams
) -> None:
    plain_engine, plain = service(directory), Stream()
    plain_engine.add(ask("a", prompt(9, 4), sampling=params), plain)
    truth = plain.ids()
    plain_engine.shutdown()

    def guess(sequences: Seq[Sequence], logits_NV: torch.Tensor) -> list[int]:
        known = [(s, truth[s.num_generated + len(s.drafts)]) for s in sequences]
        return [token if len(s.drafts) < num_right else (token + 1) % 90 for s, token in known]

    monkeypatch.setattr(engine_module, "choose_drafts", guess)
    engine, stream = drafting(directory, 1, 4), Stream()
    engine.add(ask("a", prompt(9, 4), exit_mode=LOSSLESS, sampling=params), stream)
    assert stream.ids() == truth
    graph = finished(stream).dynamic_graph
    engine.shutdown()
    if num_right == 4:
        assert graph["drafts_accepted"] == graph["drafts_proposed"]
    else:
        assert graph["drafts_accepted"] <= num_right * -(-graph["drafts_proposed"] // 4)
    assert (graph["drafts_accepted"] > 0) == (num_right > 0)


class Choices(Stream):
    """Waits for the last choice to end."""

    def __call__(self, event: StreamEvent) -> None:
        if not isinstance(event, ChoiceFinished):
            super().__call__(event)


def test_verification_samples_without_bias(directory: Path) -> None:
    params = SamplingParams(temperature=1.1, top_p=0.9, frequency_penalty=0.5, n=16, max_tokens=3, ignore_eos=True)
    ids = prompt(6, 8)
    engine = drafting(directory, 2, 1, max_batch_size=64)
    streams = [Choices() for _ in range(64)]
    for number, stream in enumerate(streams):
        asked = replace(params, seed=1000 * number)
        engine.add(ask(f"r{number}", ids, exit_mode=LOSSLESS, sampling=asked), stream)
    seconds: Counter[int] = Counter()
    for stream in streams:
        stream.end()
        answers: dict[int, list[int]] = {}
        for event in stream.events:
            if isinstance(event, TokenDelta):
                answers.setdefault(event.index, []).extend(event.token_ids)
        seconds.update(answer[1] for answer in answers.values())
    stats = engine.stats()
    engine.shutdown()
    assert 0 < stats.drafts_accepted < stats.drafts_proposed
    expected = _second_token(Dense(directory), ids.tolist(), params) * seconds.total()
    observed = np.array([seconds[token] for token in range(len(expected))])
    assert observed[expected == 0].sum() == 0
    common = expected >= 5
    statistic = float(((observed - expected)[common] ** 2 / expected[common]).sum())
    # Wilson and Hilferty's 99.9 % quantile of chi-square.
    freedom = int(common.sum()) - 1
    assert statistic < freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ** 3


def _second_token(dense: Dense, ids: list[int], params: SamplingParams) -> np.ndarray:
    """The second generated token's exact distribution, summed over the first."""

    def after(generated: tuple[int, ...]) -> torch.Tensor:
        sequence = Sequence(
            tag="t",
            index=0,
            prompt=Prompt(ids=tuple(ids), positions_3T=np.zeros((3, len(ids)), dtype=np.int64), rope_delta=0),
            sampling=params,
            segments=((0, 4),),
            max_tokens=9,
            stop_ids=frozenset(),
            emit=lambda event: None,
        )
        for token in generated:
            sequence.append(token)
        logits = dense.full_logits([*ids, *generated]).float()
        process(sequence, logits)
        return distribution(sequence, logits).double()

    first = after(())
    return sum(float(p) * after((token,)) for token, p in enumerate(first) if p > 0).numpy()  # type: ignore[union-attr]


def test_a_shallow_prefix_does_not_serve_a_deeper_request_and_a_deep_one_serves_all(directory: Path) -> None:
    engine = service(directory, block_tokens=4)
    params = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)

    def run(tag: str, depth: int, mode: ExitMode = FIXED) -> tuple[list[int], int]:
        stream = Stream()
        engine.add(ask(tag, prompt(18, 6), depth=depth, exit_mode=mode, sampling=params), stream)
        return stream.ids(), finished(stream).usage.cached_tokens

    assert run("shallow", 1)[1] == 0
    full, cached = run("full", 4)
    assert cached == 0
    assert run("middle", 2)[1] == 16
    assert run("again", 4) == (full, 16)
    assert run("lossless", 4, LOSSLESS) == (full, 16)
    engine.shutdown()


def test_a_certified_answer_is_a_prefix_only_as_far_as_its_deep_keys_exist(directory: Path) -> None:
    engine = service(directory, block_tokens=4, shadow_share=0.0)
    first, second = Stream(), Stream()
    params = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)
    no_pictures = replace(params, logit_bias={IMAGE_ID: -100.0})
    engine.add(ask("a", prompt(9, 3), exit_mode=CERTIFIED, sampling=no_pictures), first)
    ids = np.array([*prompt(9, 3).tolist(), *first.ids()], dtype=np.int32)
    engine.add(ask("b", ids, depth=4, sampling=params), second)
    assert second.ids() == Dense(directory).certified(ids, 24, {}).ids
    assert 12 <= finished(second).usage.cached_tokens <= 32
    engine.shutdown()


def test_drafts_outside_the_trimmed_vocabulary_are_never_made_and_nothing_else_changes(tmp_path: Path) -> None:
    directory = certified_checkpoint(tmp_path / "c", HALF)
    ids = torch.arange(0, 97, 2)
    save_file({"ids": ids}, directory / "exits" / "draft_vocab.safetensors")
    engine, stream = drafting(directory, 2, 3), Stream()
    made: list[int] = []
    push = Sequence.push_draft
    params = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sequence, "push_draft", lambda self, token: (made.append(token), push(self, token)))
        engine.add(ask("a", prompt(9, 3), exit_mode=LOSSLESS, sampling=params), stream)
        answer = stream.ids()
    engine.shutdown()
    assert answer == Dense(directory).certified(prompt(9, 3), 24, {}).ids
    assert made
    assert set(made) <= set(ids.tolist())

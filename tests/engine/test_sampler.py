"""The sampler against brute force over a small vocabulary."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autoglm_backend.engine.sampler import distribution, draw_uniform, pick, process, sample
from autoglm_backend.engine.sequence import Prompt, Sequence
from autoglm_protocol.sampling import SamplingParams


def row(params: SamplingParams, generated: tuple[int, ...] = (), prompt: tuple[int, ...] = (0,)) -> Sequence:
    sequence = Sequence(
        tag="t",
        index=0,
        prompt=Prompt(ids=prompt, positions_3T=np.zeros((3, len(prompt)), dtype=np.int64), rope_delta=0),
        sampling=params,
        segments=((0, 1),),
        max_tokens=100,
        stop_ids=frozenset({5}),
        emit=lambda event: None,
        seed=9,
    )
    for token in generated:
        sequence.append(token)
    return sequence


def test_frequency_and_presence_penalties_count_generated_tokens_only() -> None:
    logits = torch.zeros(6)
    process(row(SamplingParams(frequency_penalty=0.2, presence_penalty=0.5), (1, 1, 3), prompt=(2, 2)), logits)
    torch.testing.assert_close(logits, torch.tensor([0.0, -0.9, 0.0, -0.7, 0.0, 0.0]))


def test_repetition_penalty_covers_prompt_and_answer_by_sign() -> None:
    logits = torch.tensor([2.0, -2.0, 2.0, 2.0, 2.0, 2.0])
    process(row(SamplingParams(repetition_penalty=2.0), (0,), prompt=(1,)), logits)
    torch.testing.assert_close(logits, torch.tensor([1.0, -4.0, 2.0, 2.0, 2.0, 2.0]))


def test_min_tokens_bars_the_stop_ids_until_it_is_reached() -> None:
    logits = torch.zeros(6)
    process(row(SamplingParams(min_tokens=2), (1,)), logits)
    assert logits[5] == float("-inf")
    logits = torch.zeros(6)
    process(row(SamplingParams(min_tokens=2), (1, 2)), logits)
    assert logits[5] == 0.0


def test_allowed_tokens_and_bias() -> None:
    logits = torch.zeros(6)
    process(row(SamplingParams(allowed_token_ids=(1, 4), logit_bias={4: 3.0})), logits)
    assert logits.tolist() == [float("-inf"), 0.0, float("-inf"), float("-inf"), 3.0, float("-inf")]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (SamplingParams(top_k=2), [0.5 / 0.75, 0.25 / 0.75, 0, 0]),
        (SamplingParams(top_p=0.6), [0.5 / 0.75, 0.25 / 0.75, 0, 0]),
        (SamplingParams(top_p=0.5), [1, 0, 0, 0]),
        (SamplingParams(min_p=0.3), [0.5 / 0.75, 0.25 / 0.75, 0, 0]),
        (SamplingParams(temperature=0.5), [16 / 22, 4 / 22, 1 / 22, 1 / 22]),
    ],
)
def test_filters(params: SamplingParams, expected: list[float]) -> None:
    logits = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
    torch.testing.assert_close(distribution(row(params), logits), torch.tensor(expected, dtype=torch.float32))


def test_draws_follow_the_distribution() -> None:
    probabilities = torch.tensor([0.1, 0.0, 0.6, 0.3])
    draws = [pick(probabilities, draw_uniform(seed, 7)) for seed in range(4000)]
    observed = np.bincount(draws, minlength=4)
    assert observed[1] == 0
    kept = [0, 2, 3]
    expected = 4000 * probabilities.numpy()[kept]
    chi_square = float((((observed[kept] - expected) ** 2) / expected).sum())
    # 0.999 quantile with 2 degrees of freedom.
    assert chi_square < 13.8


def test_the_last_uniform_never_lands_on_an_impossible_token() -> None:
    assert pick(torch.tensor([0.3, 0.7, 0.0]), 1.0 - 1e-17) == 1


def test_logprobs_are_those_of_the_raw_distribution() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    raw = torch.log_softmax(logits[0], -1)
    (answer,) = sample(
        [row(SamplingParams(temperature=0.0, logprobs=True, top_logprobs=2, logit_bias={0: 50.0}))], logits
    )
    assert answer.token == 0
    assert answer.logprob == pytest.approx(float(raw[0]))
    assert [token for token, _ in answer.top] == [1, 2]


@pytest.mark.parametrize(
    ("generated", "barred"),
    [((), [4]), ((2,), [4]), ((2, 3), [1, 4]), ((3, 2, 3), [1, 4]), ((2, 3, 3), [4])],
)
def test_a_bad_word_is_barred_where_it_would_become_complete(generated: tuple[int, ...], barred: list[int]) -> None:
    logits = torch.zeros(6)
    sequence = row(SamplingParams(), generated, prompt=(2, 3))
    sequence.bad_words = ((2, 3, 1), (4,))
    process(sequence, logits)
    assert logits.isinf().nonzero().flatten().tolist() == barred


def test_a_bad_word_is_seen_through_drafts() -> None:
    logits = torch.zeros(6)
    sequence = row(SamplingParams(), (2,))
    sequence.bad_words = ((2, 3),)
    sequence.push_draft(2)
    process(sequence, logits)
    assert logits.isinf().nonzero().flatten().tolist() == [3]


def test_a_rule_that_would_leave_nothing_gives_way_to_those_before_it() -> None:
    logits = torch.zeros(6)
    sequence = row(SamplingParams(allowed_token_ids=(4, 5), min_tokens=3))
    sequence.bad_words = ((4,),)
    process(sequence, logits)
    assert logits.isfinite().nonzero().flatten().tolist() == [5]

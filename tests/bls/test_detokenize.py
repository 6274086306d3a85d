from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_backend.bls.detokenize import Detokenizer
from autoglm_backend.preprocess.tokenizer import TokenTable

THINK, END_THINK, EOS = 256, 257, 258
# a token per byte, then the tags: the hardest case, every character beyond ASCII is split
TABLE = TokenTable(
    raw=(*(bytes([byte]) for byte in range(256)), b"<think>", b"</think>", b"</answer>"), hidden=frozenset({EOS})
)


def tokens(text: str) -> list[int]:
    return list(text.encode())


def run(detokenizer: Detokenizer, ids: Sequence[int], cuts: Sequence[int] = ()) -> list[str]:
    """The deltas of `ids` fed in pieces that end at `cuts`."""
    borders = sorted({0, len(ids), *(cut for cut in cuts if cut <= len(ids))})
    deltas: list[str] = []
    for start, end in itertools.pairwise(borders):
        piece = detokenizer.feed(ids[start:end])
        deltas.append(piece.text)
        if piece.stopped:
            return deltas
    return [*deltas, detokenizer.finish()]


@given(text=st.text(), cuts=st.lists(st.integers(0, 200)))
def test_deltas_join_to_the_whole_text(text: str, cuts: list[int]) -> None:
    assert "".join(run(Detokenizer(TABLE), tokens(text), cuts)) == text


@given(ids=st.lists(st.integers(0, 255)), cuts=st.lists(st.integers(0, 60)))
def test_any_bytes_equal_a_decode_at_once_less_an_unfinished_end(ids: list[int], cuts: list[int]) -> None:
    streamed = "".join(run(Detokenizer(TABLE), ids, cuts))
    at_once = bytes(ids).decode(errors="replace")
    assert at_once.startswith(streamed)
    assert at_once[len(streamed) :] in ("", "\N{REPLACEMENT CHARACTER}")


@given(text=st.text(alphabet="手机👍🏽é"), cuts=st.lists(st.integers(0, 60)))
def test_no_delta_holds_half_a_character(text: str, cuts: list[int]) -> None:
    assert all("\N{REPLACEMENT CHARACTER}" not in delta for delta in run(Detokenizer(TABLE), tokens(text), cuts))


@given(
    text=st.text(alphabet="ab手", max_size=30),
    stops=st.lists(st.text(alphabet="ab手", min_size=1, max_size=4), min_size=1, max_size=3),
    cuts=st.lists(st.integers(0, 60)),
    include=st.booleans(),
)
def test_text_ends_at_the_first_stop_string(text: str, stops: list[str], cuts: list[int], include: bool) -> None:
    # reference: the shortest prefix that ends in a stop string
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(stop) for stop in stops)]
    expected = text
    if ends:
        hit = text[: ends[0]]
        longest = max(len(stop) for stop in stops if hit.endswith(stop))
        expected = hit if include else hit[: len(hit) - longest]
    detokenizer = Detokenizer(TABLE, stop=stops, include_stop=include)
    assert "".join(run(detokenizer, tokens(text), cuts)) == expected
    assert detokenizer.stopped == bool(ends)


def test_tokens_after_a_stop_string_do_not_count() -> None:
    piece = Detokenizer(TABLE, stop=["ab"]).feed(tokens("xabyz"))
    assert (piece.text, piece.num_tokens, piece.stopped) == ("x", 3, True)


def test_stop_strings_wait_for_min_tokens() -> None:
    assert "".join(run(Detokenizer(TABLE, stop=["a"], min_tokens=2), tokens("aabac"))) == "aab"


def test_what_may_become_a_stop_string_is_held_back_and_released_when_it_does_not() -> None:
    detokenizer = Detokenizer(TABLE, stop=["</x>"])
    assert [detokenizer.feed([token]).text for token in tokens("a</y")] == ["a", "", "", "</y"]


def test_end_tokens_never_show() -> None:
    assert "".join(run(Detokenizer(TABLE), [*tokens("hi"), EOS])) == "hi"


def test_thought_tags_show_and_the_tokens_between_them_are_counted() -> None:
    detokenizer = Detokenizer(TABLE, think_ids=(THINK, END_THINK))
    assert "".join(run(detokenizer, [THINK, *tokens("hm"), END_THINK, *tokens("ok")])) == "<think>hm</think>ok"
    assert detokenizer.reasoning_tokens == 2


def test_a_prompt_that_ends_inside_a_thought_is_counted_from_there() -> None:
    detokenizer = Detokenizer(TABLE, think_ids=(THINK, END_THINK), starts_in_thought=True)
    detokenizer.feed([*tokens("hm"), END_THINK, *tokens("ok")])
    assert detokenizer.reasoning_tokens == 2


@pytest.mark.parametrize("token", [259, 100_000])
def test_padding_ids_of_the_model_have_no_text(token: int) -> None:
    assert Detokenizer(TABLE).feed([token]).text == ""


@given(text=st.text(alphabet="ab手👍", max_size=30), stop=st.text(alphabet="ab手", min_size=1, max_size=3))
def test_the_shares_of_tokens_make_up_the_text(text: str, stop: str) -> None:
    detokenizer = Detokenizer(TABLE, stop=(stop,))
    piece = detokenizer.feed(tokens(text))
    assert sum(piece.chars) == len(piece.text)
    assert len(piece.chars) == piece.num_tokens == detokenizer.num_tokens

"""Tokens laid along a text: characters of several tokens, hidden tokens, bytes that are no text, text that lags."""

from __future__ import annotations

import pytest

from autoglm_gateway.token_spans import TokenSpans
from autoglm_protocol.events import TokenLogprob


def tokens(*pieces: bytes) -> list[TokenLogprob]:
    return [
        TokenLogprob(token_id=number, token=raw.decode(errors="replace"), raw=raw, logprob=-1.0)
        for number, raw in enumerate(pieces)
    ]


def ids(found: list[TokenLogprob]) -> list[int]:
    return [token.token_id for token in found]


def test_a_part_has_the_tokens_that_wrote_it() -> None:
    spans = TokenSpans()
    spans.feed("thought|answer", tokens(b"thou", b"ght", b"|", b"ans", b"wer"))
    assert ids(spans.take("answer", behind="")) == [3, 4]


def test_what_stands_behind_comes_with_its_own_part() -> None:
    spans = TokenSpans()
    spans.feed("I look. {", tokens(b"I look", b".", b" {"))
    assert ids(spans.take("I look.", behind=" {")) == [0, 1]
    assert ids(spans.take(" {", behind="")) == [2]


def test_both_tokens_of_a_character_belong_to_it() -> None:
    spans = TokenSpans()
    first, second = "点".encode()[:1], "点".encode()[1:]
    spans.feed("", tokens(first))
    spans.feed("点", tokens(second))
    assert spans.take("点", behind="")[1].raw == second


def test_text_that_comes_later_than_its_tokens_finds_them() -> None:
    spans = TokenSpans()
    spans.feed("a", tokens(b"a", b"EN", b"D!"))
    assert ids(spans.take("a", behind="")) == [0]
    spans.feed("END!", [])
    assert ids(spans.take("END!", behind="")) == [1, 2]


def test_a_token_of_which_a_stop_string_left_nothing_is_left_out() -> None:
    spans = TokenSpans()
    spans.feed("a", tokens(b"a", b"STOP"))
    assert ids(spans.take("a", behind="")) == [0]


def test_a_token_that_a_stop_string_cut_belongs_to_what_is_left_of_it() -> None:
    spans = TokenSpans()
    spans.feed("ab", tokens(b"a", b"bST", b"OP"))
    assert ids(spans.take("ab", behind="")) == [0, 1]


def test_a_token_whose_text_comes_in_two_parts_is_given_once() -> None:
    spans = TokenSpans()
    spans.feed("a", tokens(b"aST", b"x"))
    assert ids(spans.take("a", behind="")) == [0]
    spans.feed("STx", [])
    assert ids(spans.take("STx", behind="")) == [1]


@pytest.mark.parametrize("hidden", [b"<|endoftext|>", b"\xff"])
def test_a_token_that_is_not_shown_moves_nothing(hidden: bytes) -> None:
    spans = TokenSpans()
    text = "ab" if hidden.isascii() else "a\ufffdb"
    spans.feed(text, tokens(b"a", hidden, b"b"))
    assert ids(spans.take("b", behind="")) == [2]

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from autoglm_client.tags import Section, TagFilter

PIECES = st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "<", "</", "a < b", "tap", "<x>", "蓝"])


def filtered(chunks: list[str]) -> list[tuple[Section, str]]:
    tags = TagFilter()
    merged: list[tuple[Section, str]] = []
    for section, text in [piece for chunk in chunks for piece in tags.feed(chunk)] + tags.end():
        if merged and merged[-1][0] is section:
            merged[-1] = (section, merged[-1][1] + text)
        else:
            merged.append((section, text))
    return merged


@given(st.lists(PIECES).map("".join), st.lists(st.integers(0, 60)))
def test_any_cut_of_a_text_reads_the_same(text: str, positions: list[int]) -> None:
    places = sorted({min(p, len(text)) for p in positions} | {0, len(text)})
    chunks = [text[a:b] for a, b in itertools.pairwise(places)]
    assert filtered(chunks) == filtered([text])


def test_thought_and_answer_lose_their_tags() -> None:
    assert filtered(["<thi", "nk>why</think><answer>do()</answer>"]) == [
        (Section.THOUGHT, "why"),
        (Section.ANSWER, "do()"),
    ]


def test_what_only_looks_like_a_tag_is_shown() -> None:
    assert filtered(["1 <", " 2 </th"]) == [(Section.ANSWER, "1 < 2 </th")]

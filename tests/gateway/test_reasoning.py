from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from autoglm_gateway.answer_text import read_answer
from autoglm_gateway.draft import ChatDraft
from autoglm_gateway.reasoning import ReasoningSplitter, Split

PIECES = st.sampled_from(["<think>", "</think>", "<", "</", "</th", "ink>", "a", "想", " ", "<answer>"])


def split_reasoning(text: str) -> Split:
    return read_answer(text, ChatDraft(model="m", messages=(), return_reasoning=True))[0]


@given(st.lists(PIECES).map("".join), st.lists(st.integers(0, 40)))
def test_however_the_text_is_cut_the_split_is_that_of_the_whole(text: str, cuts: list[int]):
    """Check 23."""
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    splitter = ReasoningSplitter()
    parts = [splitter.feed(text[a:b]) for a, b in itertools.pairwise(edges)]
    parts.append(splitter.finish())

    joined = Split(reasoning="".join(p.reasoning for p in parts), content="".join(p.content for p in parts))
    assert joined == split_reasoning(text)


@given(st.text(), st.text())
def test_nothing_but_the_tags_is_lost(thought: str, rest: str):
    thought = thought.replace("</think>", "")
    split = split_reasoning(f"<think>{thought}</think>{rest}")

    assert split == Split(reasoning=thought, content=rest)


def test_text_without_a_thought_is_all_content():
    assert split_reasoning("<answer>ok") == Split(reasoning="", content="<answer>ok")


def test_an_unfinished_thought_is_all_reasoning():
    assert split_reasoning("<think>so I </thi") == Split(reasoning="so I </thi", content="")


def test_the_start_of_a_thought_is_passed_on_before_its_end():
    splitter = ReasoningSplitter()

    assert splitter.feed("<think>so").reasoning == "so"

"""Grammars over the tokens of a checkpoint: whatever is chosen among the allowed tokens matches in the end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.tiny_checkpoint import IDS, VOCAB_SIZE, write_texts

from autoglm_backend.engine.grammar import GrammarState, Place
from autoglm_backend.engine.wording import Wording
from autoglm_backend.models.config import load_model_config
from autoglm_backend.preprocess.tokenizer import TokenTable, load_tokenizer
from autoglm_protocol.actions import ACTION_NAMES, parse_action, split_reply
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.grammar import Grammar, GrammarKind

DEFAULT_CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "autoglm-phone-tiny"
EOS = IDS["<|user|>"]
OPENING, CLOSING = IDS["<think>"], IDS["</think>"]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def wording(tmp_path_factory: pytest.TempPathFactory) -> Wording:
    directory = write_texts(tmp_path_factory.mktemp("checkpoint"))
    return Wording(directory, load_model_config(directory))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> TokenTable:
    return load_tokenizer(write_texts(tmp_path_factory.mktemp("tokens"))).token_table()


def start(wording: Wording, grammar: Grammar, place: Place = Place.ANSWER) -> GrammarState:
    return wording.grammar(grammar).start(place, [EOS])


def walk(state: GrammarState, seed: int, limit: int = 400) -> list[int] | None:
    """Uniform choices among the allowed tokens up to the end; None when it did not come in time."""
    generator = np.random.default_rng(seed)
    ids: list[int] = []
    while not state.is_complete:
        if len(ids) == limit:
            return None
        ids.append(int(generator.choice(state.mask().nonzero()[0])))
        state.advance(ids[-1])
    return ids


def text_of(table: TokenTable, ids: list[int]) -> str:
    return b"".join(table.raw_bytes(token) for token in ids if token != EOS).decode()


def is_of_schema(text: str) -> bool:
    value = json.loads(text)
    return set(value) == {"name", "age"} and isinstance(value["name"], str) and 0 <= value["age"] <= 99


@pytest.mark.parametrize(
    ("grammar", "matches"),
    [
        (Grammar(kind=GrammarKind.JSON_OBJECT), lambda text: isinstance(json.loads(text), dict)),
        (Grammar.of_schema(SCHEMA), is_of_schema),
        (Grammar(kind=GrammarKind.REGEX, value=r"(ab|c){2,5}\.[0-9]*"), re.compile(r"(ab|c){2,5}\.[0-9]*").fullmatch),
        (Grammar.of_choices(['say "no"', "a\\b\n", "是"]), {'say "no"', "a\\b\n", "是"}.__contains__),
        (Grammar(kind=GrammarKind.LARK, value='start: ("x" | "y" start)'), re.compile("y*x").fullmatch),
        (Grammar(kind=GrammarKind.LARK, value='root ::= "a" | "b" root'), re.compile("b*a").fullmatch),
    ],
    ids=["json_object", "json_schema", "regex", "choice", "lark", "gbnf"],
)
def test_what_is_allowed_matches(
    wording: Wording, table: TokenTable, grammar: Grammar, matches: Callable[[str], object]
) -> None:
    walks = [walk(start(wording, grammar), seed) for seed in range(30)]
    complete = [text_of(table, ids) for ids in walks if ids is not None]
    assert complete
    assert all(matches(text) for text in complete)


def test_an_action_always_parses(wording: Wording, table: TokenTable) -> None:
    texts = []
    for seed in range(400):
        ids = walk(start(wording, Grammar(kind=GrammarKind.AUTOGLM_ACTION)), seed, limit=300)
        texts += [] if ids is None else [text_of(table, ids)]
    actions = [parse_action(split_reply(text).action_text) for text in texts]
    assert {*ACTION_NAMES, "finish"} == {action.name for action in actions}


@pytest.mark.parametrize(
    "text",
    [
        'do(action="Tap", element=[0,999])',
        'do(action="Tap", element=[5, 10], message="Pay <now>?")',
        'do(action="Swipe", start=[1,2], end=[3,4])',
        'do(action="Type", text="a \\"quoted\\" < b \\\\ 世界")',
        'do(action="Wait", duration="2 seconds")',
        'finish(message="")',
    ],
)
def test_the_actions_that_agents_write_are_allowed(wording: Wording, text: str) -> None:
    state = start(wording, Grammar(kind=GrammarKind.AUTOGLM_ACTION))
    for token in wording.bad_words((f"<answer>{text}",))[0]:
        assert state.allows(token)
        state.advance(token)
    assert state.is_complete


@pytest.mark.parametrize(
    "text",
    [
        'do(action="Tap", element=[1000',
        'do(action="Tap", element=[-1',
        'do(action="Tap", element=[07',
        'do(action="Tap")',
        'do(action="Fly"',
        'do(action="Type", text="a\n',
        'finish(message="\\x',
        'finish(message="</',
        " do",
    ],
)
def test_no_other_action_is_allowed(wording: Wording, text: str) -> None:
    state = start(wording, Grammar(kind=GrammarKind.AUTOGLM_ACTION))
    ids = list(wording.bad_words((f"<answer>{text}",))[0])
    while ids and state.allows(ids[0]):
        state.advance(ids.pop(0))
    assert ids


def test_an_end_token_comes_only_where_the_answer_may_end(wording: Wording) -> None:
    state = start(wording, Grammar(kind=GrammarKind.REGEX, value="[0-9]+"))
    assert not state.allows(EOS)
    state.advance(ord("7") - 33)  # byte tokens start with "!"
    assert state.allows(EOS)
    assert not state.is_complete
    state.advance(EOS)
    assert state.is_complete


def test_an_answer_that_nothing_can_follow_is_complete_without_an_end_token(wording: Wording) -> None:
    state = start(wording, Grammar.of_choices(["7"]))
    state.advance(ord("7") - 33)
    assert state.is_complete


def test_end_tokens_that_do_not_stop_the_request_never_come(wording: Wording) -> None:
    state = wording.grammar(Grammar(kind=GrammarKind.REGEX, value="[0-9]+")).start(Place.ANSWER, [])
    state.advance(ord("7") - 33)
    assert not state.allows(EOS)


def test_rolling_back_restores_every_state_on_the_way(wording: Wording) -> None:
    state = start(wording, Grammar.of_schema(SCHEMA), Place.START)
    ids = [OPENING, 5, 6, CLOSING, *(walk(start(wording, Grammar.of_schema(SCHEMA)), 3) or ())]
    masks, places = [], []
    for token in ids:
        masks.append(state.mask().copy())
        places.append(state.place)
        state.advance(token)
    for count in range(1, len(ids) + 1):
        state.rollback(count)
        assert state.place is places[-count]
        assert (state.mask() == masks[-count]).all()
        for token in ids[len(ids) - count :]:
            state.advance(token)
    assert state.is_complete


def test_one_token_is_judged_as_the_mask_judges_it(wording: Wording) -> None:
    grammar = Grammar.of_schema(SCHEMA)
    ids = walk(start(wording, grammar), 4) or []
    lazy, eager = start(wording, grammar, Place.START), start(wording, grammar, Place.START)
    for token in ids:
        one_by_one = [lazy.allows(other) for other in range(VOCAB_SIZE)]
        assert one_by_one == eager.mask().tolist()
        lazy.advance(token)
        eager.advance(token)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("<|user|>Hi<|assistant|>\n", Place.START),
        ("<|user|>Hi<|assistant|>\n<think>", Place.THOUGHT),
        ("<|user|>Hi<|assistant|>\n<think></think>", Place.ANSWER),
        ("<|assistant|>\n<think>a</think>b<|user|>Hi<|assistant|>\n", Place.START),
        ("<|user|>what does <think> do?<|assistant|>\n", Place.START),
    ],
)
def test_where_an_answer_starts(tmp_path: Path, wording: Wording, text: str, place: Place) -> None:
    ids = load_tokenizer(write_texts(tmp_path)).encode(text)
    assert wording.place_after(np.array(ids)) is place


def test_a_thought_is_free_and_the_answer_behind_it_is_not(wording: Wording) -> None:
    state = start(wording, Grammar.of_choices(["7"]), Place.START)
    assert state.mask().nonzero()[0].tolist() == [ord("7") - 33, OPENING]
    state.advance(OPENING)
    assert state.mask().sum() == VOCAB_SIZE - 3
    assert not state.allows(EOS)
    state.advance(CLOSING)
    assert state.mask().nonzero()[0].tolist() == [ord("7") - 33]


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar(kind=GrammarKind.REGEX, value="(", param="guided_regex"),
        Grammar(kind=GrammarKind.REGEX, value="(?=a)b", param="guided_regex"),
        Grammar(kind=GrammarKind.LARK, value="start: missing", param="guided_grammar"),
        Grammar(kind=GrammarKind.LARK, value="\x00", param="guided_grammar"),
        Grammar(kind=GrammarKind.JSON_SCHEMA, value='{"type": "unknown"}', param="response_format.json_schema.schema"),
        Grammar(kind=GrammarKind.JSON_SCHEMA, value='{"$ref": "https://a/b"}', param="guided_json"),
        Grammar(kind=GrammarKind.JSON_SCHEMA, value='{"not": {}}', param="guided_json"),
    ],
)
def test_what_does_not_compile_is_the_callers_to_mend(wording: Wording, grammar: Grammar) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        wording.grammar(grammar)
    assert caught.value.param == grammar.param


def test_an_equal_grammar_is_compiled_once(wording: Wording) -> None:
    assert wording.grammar(Grammar.of_schema(SCHEMA)) is wording.grammar(Grammar.of_schema(SCHEMA))


def test_bad_words_are_read_with_and_without_a_space() -> None:
    wording = Wording(DEFAULT_CHECKPOINT, load_model_config(DEFAULT_CHECKPOINT))
    tokenizer = load_tokenizer(DEFAULT_CHECKPOINT)
    found = wording.bad_words((" look",))
    assert tuple(tokenizer.encode("look")) in found
    assert all(tokenizer.token_table().raw_bytes(ids[0]) != b" " for ids in found)


def test_an_empty_bad_word_is_refused(wording: Wording) -> None:
    with pytest.raises(InvalidRequestError, match="bad_words"):
        wording.bad_words((" ",))


def test_the_default_checkpoints_action_ends_before_its_end_token() -> None:
    wording = Wording(DEFAULT_CHECKPOINT, load_model_config(DEFAULT_CHECKPOINT))
    state = wording.grammar(Grammar(kind=GrammarKind.AUTOGLM_ACTION)).start(Place.ANSWER, [])
    for token in load_tokenizer(DEFAULT_CHECKPOINT).encode('<answer>do(action="Back")'):
        assert state.allows(token)
        state.advance(token)
    assert state.is_complete

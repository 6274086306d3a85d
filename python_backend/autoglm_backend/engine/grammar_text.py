"""Our grammars in the words of the llguidance library: one text per kind."""

from __future__ import annotations

import json
from collections.abc import Sequence

from llguidance import LLMatcher
from llguidance.gbnf_to_lark import any_to_lark

from autoglm_protocol.actions import ACTION_SPECS, COORDINATE_MAX, FINISH_SPEC, ActionSpec, Argument, ArgumentKind
from autoglm_protocol.grammar import Grammar, GrammarKind

# A space, or a line break and its indentation. With more, a small model pads until its tokens run out: 20 at each place
# were enough to cut an answer of two fields off at 150 tokens.
_WHITESPACE = r"( |\n {0,8})?"

# Text between double quotes that Python and JSON read alike, on one line. `</` is left out because the first
# </think> or </answer> of an answer is taken for a tag, wherever it stands.
_STRING = r'TEXT: /"([^"\\<\x00-\x1f\x7f]|<[^"\/\\<\x00-\x1f\x7f]|<*\\["\\n])*<*"/'


def library_grammar(grammar: Grammar, *, answer_tag_ends: bool) -> str:
    """What LLMatcher takes. Raises InvalidRequestError for text that cannot be read at all.

    answer_tag_ends: </answer> is an end token of the checkpoint, so that an action's text ends before it.
    """
    if grammar.kind in (GrammarKind.JSON_OBJECT, GrammarKind.JSON_SCHEMA):
        schema = grammar.value or '{"type": "object"}'
        try:
            return LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_pattern": _WHITESPACE})
        except ValueError as error:
            raise grammar.refusal(f"the JSON schema cannot be read: {error}") from error
    if grammar.kind is GrammarKind.REGEX:
        return LLMatcher.grammar_from_regex(grammar.value)
    if grammar.kind is GrammarKind.CHOICE:
        # A Lark string is written as in JSON.
        alternatives = (json.dumps(choice, ensure_ascii=False) for choice in grammar.choices)
        return LLMatcher.grammar_from_lark(f"start: {' | '.join(alternatives)}")
    if grammar.kind is GrammarKind.LARK:
        try:
            return LLMatcher.grammar_from_lark(any_to_lark(grammar.value))  # GBNF, which vLLM's clients send, too
        except Exception as error:  # what the converter raises is documented nowhere
            raise grammar.refusal(f"the grammar cannot be read: {error}") from error
    return LLMatcher.grammar_from_lark(action_lark(grammar.actions, answer_tag_ends=answer_tag_ends))


def action_lark(names: Sequence[str], *, answer_tag_ends: bool) -> str:
    """Every answer with one of these actions as the phone agents write it, which `actions.parse_action` reads."""
    closing = "" if answer_tag_ends else ' "</answer>"'
    calls = [_call_lark("do", f'"action={_quoted(spec.name)}"', spec) for spec in ACTION_SPECS if spec.name in names]
    if FINISH_SPEC.name in names:
        calls.append(_call_lark(FINISH_SPEC.name, "", FINISH_SPEC))
    return "\n".join(
        (
            f'start: "<answer>" call{closing}',
            f"call: {' | '.join(calls)}",
            'point: "[" NUMBER "," " "? NUMBER "]"',
            f"NUMBER: {_up_to(COORDINATE_MAX)}",
            _STRING,
        )
    )


def _call_lark(function: str, first: str, spec: ActionSpec) -> str:
    parts = [first] if first else []
    for argument in spec.arguments:
        separator = '", " ' if parts else ""
        part = f"{separator}{_argument_lark(argument)}"
        parts.append(part if argument.required else f"({part})?")
    return f'"{function}(" {" ".join(parts)} ")"'


def _argument_lark(argument: Argument) -> str:
    rule = "point" if argument.kind is ArgumentKind.POINT else "TEXT"
    return f'"{argument.name}=" {rule}'


def _quoted(text: str) -> str:
    return f'\\"{text}\\"'


def _up_to(limit: int) -> str:
    """A Lark regular expression for 0..10^n - 1, without leading zeros: Python refuses 007."""
    digits = len(str(limit))
    assert limit == 10**digits - 1
    return f"/0|[1-9][0-9]{{0,{digits - 1}}}/"

"""What clients ask an answer to look like, in OpenAI's and vLLM's words, to a Grammar that names their field."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from autoglm_gateway.json_fields import JsonFields
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.grammar import Grammar, GrammarKind

FORMAT_FIELDS = frozenset(
    (
        "response_format",
        "structured_outputs",
        "guided_json",
        "guided_regex",
        "guided_choice",
        "guided_grammar",
    )
)
_STRUCTURED = ("json", "regex", "choice", "grammar", "json_object")
_FORMATS = ("text", "json_object", "json_schema", "autoglm_action")


def read_grammar(fields: JsonFields) -> Grammar | None:
    """None where every text is welcome. Raises InvalidRequestError naming the field, also when two fields ask."""
    asked = list(_asked(fields))
    if len(asked) > 1:
        names = " and ".join(grammar.param for grammar in asked)
        raise InvalidRequestError(f"{names} cannot be used together", param=asked[1].param)
    return asked[0] if asked else None


def read_format(format: JsonFields, *, schema_at: str | None) -> Grammar | None:
    """OpenAI's `response_format`, or `text.format` of /v1/responses.

    schema_at: the section that holds the schema; None where it stands beside the type. A schema is followed to the
    letter whatever `strict` says.
    """
    kind = format.required_text("type")
    if kind == "text":
        return None
    if kind == "json_schema":
        section = format if schema_at is None else format.section(schema_at)
        if section is None or section.raw.get("schema") is None:
            where = (section or format).where("schema" if section is not None else str(schema_at))
            raise InvalidRequestError(f"{where} is missing", code="missing_required_parameter", param=where)
        return _json(section, "schema")
    if kind not in _FORMATS:
        where = format.where("type")
        raise InvalidRequestError(f"{where} is {kind!r}, must be one of {', '.join(_FORMATS)}", param=where)
    return Grammar(kind=GrammarKind(kind), param=format.path)


def answers_with_data(grammar: Grammar | None) -> bool:
    """True where a thought in front of the answer would spoil it for the program that reads it."""
    return grammar is not None and grammar.kind is not GrammarKind.AUTOGLM_ACTION


def _asked(fields: JsonFields) -> Iterator[Grammar]:
    if fields.raw.get("grammar") is not None:
        yield Grammar.from_json(fields.raw["grammar"])
    format = fields.section("response_format")
    grammar = None if format is None else read_format(format, schema_at="json_schema")
    if grammar is not None:
        yield grammar
    for name, read in _READERS.items():
        if fields.raw.get(f"guided_{name}") is not None:
            yield read(fields, f"guided_{name}")
    structured = fields.section("structured_outputs")
    if structured is None:
        return
    given = {name for name, value in structured.raw.items() if value is not None}
    unknown = sorted(given - {*_STRUCTURED})
    if unknown:
        where = structured.where(unknown[0])
        raise InvalidRequestError(f"{where} is not supported by this server", code="unsupported_parameter", param=where)
    if structured.flag("json_object", False):
        yield Grammar(kind=GrammarKind.JSON_OBJECT, param=structured.where("json_object"))
    for name, read in _READERS.items():
        if name in given:
            yield read(structured, name)


def _json(fields: JsonFields, name: str) -> Grammar:
    """A schema as an object, or as its text (vLLM)."""
    value = fields.raw[name]
    if not isinstance(value, dict | str):
        raise fields.wrong_type(name, "a JSON schema", value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return Grammar(kind=GrammarKind.JSON_SCHEMA, value=text, param=fields.where(name))


def _regex(fields: JsonFields, name: str) -> Grammar:
    return Grammar(kind=GrammarKind.REGEX, value=fields.required_text(name), param=fields.where(name))


def _choice(fields: JsonFields, name: str) -> Grammar:
    items: list[Any] = fields.items(name) or []
    text = json.dumps(items, ensure_ascii=False)
    return Grammar(kind=GrammarKind.CHOICE, value=text, param=fields.where(name))


def _lark(fields: JsonFields, name: str) -> Grammar:
    return Grammar(kind=GrammarKind.LARK, value=fields.required_text(name), param=fields.where(name))


_READERS: dict[str, Callable[[JsonFields, str], Grammar]] = {
    "json": _json,
    "regex": _regex,
    "choice": _choice,
    "grammar": _lark,
}

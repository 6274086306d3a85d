"""/tokenize and /detokenize in vLLM's shape. The model server holds the only tokenizer, so both ask it.

A second tokenizer here would need the checkpoint in the gateway's image, and could disagree with the one that counts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from autoglm_gateway.answer import StreamFormat
from autoglm_gateway.draft import ChatDraft
from autoglm_gateway.json_fields import JsonFields
from autoglm_gateway.openai_schema import parse_chat
from autoglm_protocol.chat import Task, TaskKind
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.events import Completion, Started

_OF_A_PROMPT = frozenset(("model", "prompt", "add_special_tokens", "return_token_strs"))


def parse_tokenize(body: Any, *, features: frozenset[str]) -> ChatDraft:
    """`prompt` is a text by itself; `messages` are rendered as for a chat. Raises InvalidRequestError."""
    fields = JsonFields(body)
    model = fields.required_text("model")
    is_chat = "messages" in fields.raw
    task = Task(
        kind=TaskKind.TOKENIZE,
        text=None if is_chat else fields.required_text("prompt"),
        add_special_tokens=fields.flag("add_special_tokens", not is_chat),  # a chat template spells its own
        return_token_strs=fields.flag("return_token_strs", False),
    )
    if is_chat:
        ours = {name: value for name, value in fields.raw.items() if name not in _OF_A_PROMPT - {"model"}}
        return replace(parse_chat(ours, features=features), task=task, stream=False)
    return ChatDraft(
        model=model,
        messages=(),
        task=task,
        ignored_fields=tuple(sorted(fields.raw.keys() - _OF_A_PROMPT)),
    )


def parse_detokenize(body: Any, *, features: frozenset[str]) -> ChatDraft:
    """Raises InvalidRequestError."""
    fields = JsonFields(body)
    model = fields.required_text("model")
    tokens = fields.items("tokens")
    if tokens is None:
        raise InvalidRequestError("tokens is missing", code="missing_required_parameter", param="tokens")
    for index, token in enumerate(tokens):
        if type(token) is not int:
            raise fields.wrong_type(f"tokens[{index}]", "an integer", token)
        if not 0 <= token < 1 << 31:
            raise InvalidRequestError(f"tokens[{index}] is {token}, which is no token id", param=f"tokens[{index}]")
    task = Task(kind=TaskKind.DETOKENIZE, token_ids=tuple(cast("list[int]", tokens)))
    ignored = tuple(sorted(fields.raw.keys() - {"model", "tokens"}))
    return ChatDraft(model=model, messages=(), task=task, ignored_fields=ignored)


class TokenizeFormat:
    def whole(self, draft: ChatDraft, completion: Completion) -> dict[str, Any]:
        tokens = completion.choices[0].token_ids
        return {"count": len(tokens), "tokens": tokens, "token_strs": None, **completion.dynamic_graph}

    def stream(self, draft: ChatDraft, started: Started) -> StreamFormat:
        raise AssertionError("a token count is never streamed")


class DetokenizeFormat:
    def whole(self, draft: ChatDraft, completion: Completion) -> dict[str, Any]:
        return {"prompt": completion.choices[0].text}

    def stream(self, draft: ChatDraft, started: Started) -> StreamFormat:
        raise AssertionError("a text of ids is never streamed")

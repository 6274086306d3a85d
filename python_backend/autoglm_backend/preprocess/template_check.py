"""The start-up test of a checkpoint's chat template and tokenizer: a probe conversation must come out as GLM-4.1V's
special tokens demand. A wrong one raises nothing later: the model just answers short, garbled or off target."""

from __future__ import annotations

from collections.abc import Sequence

from autoglm_backend.models.config import CheckpointError, ModelConfig
from autoglm_backend.preprocess.chat_template import ChatTemplate
from autoglm_protocol.chat import ChatOptions, ImagePart, Message, Part, Role, TextPart
from autoglm_protocol.errors import InvalidRequestError

USER, ASSISTANT = "<|user|>", "<|assistant|>"
REQUIRED_TOKENS = ("[gMASK]", "<sop>", USER, ASSISTANT, "<think>", "</think>", "<answer>", "</answer>")
# No words: nothing of them may be part of a template's own text.
_SYSTEM, _FIRST, _SECOND, _REPLY, _LAST = "qzs0", "qzu1", "qzu2", "qza3", "qzu4"


def check_tokens(template: ChatTemplate, config: ModelConfig) -> None:
    """Raises CheckpointError naming tokenizer.json and the token that is missing from it."""
    tokenizer = template.tokenizer
    for content in REQUIRED_TOKENS:
        if tokenizer.id_of(content) is None:
            raise CheckpointError(f"tokenizer.json: the special token {content} is missing from added_tokens")
    ids = {token.id: token.content for token in tokenizer.added.values()}
    for name in ("image_token_id", "image_start_token_id", "image_end_token_id", "video_token_id"):
        if getattr(config, name) not in ids:
            raise CheckpointError(
                f"tokenizer.json: no special token has the id {getattr(config, name)} that config.json gives as {name}"
            )
    highest = max(ids)
    if highest >= config.text.vocab_size:
        raise CheckpointError(
            f"tokenizer.json: {ids[highest]} has the id {highest}, config.json has a vocab_size of "
            f"{config.text.vocab_size}"
        )


def check_template(template: ChatTemplate, config: ModelConfig) -> tuple[str, ...]:
    """What an operator should know of the template. Raises CheckpointError saying what it does wrong."""
    check_tokens(template, config)
    probe = (
        _message(Role.SYSTEM, TextPart(text=_SYSTEM)),
        _message(Role.USER, ImagePart(data=b""), TextPart(text=_FIRST), ImagePart(data=b""), TextPart(text=_SECOND)),
        _message(Role.ASSISTANT, TextPart(text=_REPLY)),
        _message(Role.USER, TextPart(text=_LAST)),
    )
    tokenizer = template.tokenizer
    try:
        prompt = template.encode(
            probe, ChatOptions(), image_tokens=(1, 1), audio_tokens=(), context_tokens=config.text.max_positions
        )
    except InvalidRequestError as error:
        raise CheckpointError(f"chat template: a probe conversation cannot be rendered: {error.message}") from error
    ids = [int(token) for token in prompt.ids]
    picture = (config.image_start_token_id, config.image_token_id, config.image_end_token_id)
    user, assistant = (_id(template, content) for content in (USER, ASSISTANT))
    head = (_id(template, "[gMASK]"), _id(template, "<sop>"))
    if tuple(ids[:2]) != head:
        raise CheckpointError("chat template: a prompt does not begin with [gMASK]<sop>")
    roles = [token for token in ids if token in (user, assistant)]
    if roles != [user, assistant, user, assistant]:
        raise CheckpointError(
            f"chat template: user, assistant, user came out as {[_name(template, token) for token in roles]}; expected "
            f"{USER}, {ASSISTANT}, {USER} and a closing {ASSISTANT}"
        )
    wanted: list[tuple[str, Sequence[int]]] = [
        (USER, (user,)),
        ("the first picture", picture),
        ("the text after it", tokenizer.encode(_FIRST)),
        ("the second picture", picture),
        ("the text after that", tokenizer.encode(_SECOND)),
        (ASSISTANT, (assistant,)),
        ("the assistant's text", tokenizer.encode(_REPLY)),
        (USER, (user,)),
        ("the last text", tokenizer.encode(_LAST)),
        (ASSISTANT, (assistant,)),
    ]
    start = 0
    for what, tokens in wanted:
        found = _find(ids, tokens, start)
        if found is None:
            raise CheckpointError(f"chat template: {what} of a probe conversation is missing or in another place")
        start = found + len(tokens)
    return _system_notices(template, ids)


def _system_notices(template: ChatTemplate, ids: list[int]) -> tuple[str, ...]:
    if _find(ids, template.tokenizer.encode(_SYSTEM), 0) is not None:
        return ()
    if "system" in template.source:
        raise CheckpointError("chat template: it has a branch for system messages, and loses their text")
    return ("The chat template of this checkpoint leaves system messages out.",)


def _message(role: Role, *parts: Part) -> Message:
    return Message(role=role, parts=parts)


def _id(template: ChatTemplate, content: str) -> int:
    token = template.tokenizer.id_of(content)
    assert token is not None, "check_tokens has seen it"
    return token


def _name(template: ChatTemplate, token: int) -> str:
    return next(added.content for added in template.tokenizer.added.values() if added.id == token)


def _find(ids: list[int], wanted: Sequence[int], start: int) -> int | None:
    """Where `wanted` begins in `ids` from `start` on."""
    places = range(start, len(ids) - len(wanted) + 1)
    return next((place for place in places if ids[place : place + len(wanted)] == list(wanted)), None)

"""The bodies of /v1/completions and /v1/multimodal/completions to a ChatDraft: the prompt becomes one user turn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from autoglm_gateway.answer_format import answers_with_data
from autoglm_gateway.draft import ChatDraft, DraftMessage, MediaKind, MediaRef
from autoglm_gateway.json_fields import JsonFields
from autoglm_gateway.openai_schema import read_settings, refuse_tools, refuse_unsupported
from autoglm_protocol.chat import Role, TextPart
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.sampling import MAX_TOP_LOGPROBS

_COMPLETION = frozenset(("prompt", "suffix", "echo"))
_MULTIMODAL = frozenset(("prompt", "system", "image", "images", "audio", "audio_format"))


def parse_completion(body: Any, *, features: frozenset[str]) -> ChatDraft:
    """Raises InvalidRequestError naming the field."""
    fields = JsonFields(body)
    model = fields.required_text("model")
    prompt = _prompt(fields)
    if fields.raw.get("suffix") is not None:
        raise InvalidRequestError(
            "suffix is not supported by this server", code="unsupported_parameter", param="suffix"
        )
    settings = _settings(fields, features, _COMPLETION)
    message = DraftMessage(role=Role.USER, parts=(TextPart(text=prompt),))
    return replace(settings, model=model, messages=(message,))


def parse_multimodal(body: Any, *, features: frozenset[str]) -> ChatDraft:
    """One plain body: `prompt`, `image` or `images`, `audio`, each medium as base64 or a URL."""
    fields = JsonFields(body)
    model = fields.required_text("model")
    image = fields.text("image")
    images = [] if image is None else [_medium(fields, "image", image)]
    for index, item in enumerate(fields.items("images") or []):
        name = f"images[{index}]"
        if not isinstance(item, str):
            raise fields.wrong_type(name, "a string", item)
        images.append(_medium(fields, name, item))
    audio = fields.text("audio")
    sounds = [] if audio is None else [_medium(fields, "audio", audio)]
    prompt = fields.text("prompt")
    texts = [] if prompt is None else [TextPart(text=prompt)]
    parts = (*images, *sounds, *texts)
    if not parts:
        raise InvalidRequestError(
            "prompt, image and audio are all missing", code="missing_required_parameter", param="prompt"
        )
    system = fields.text("system")
    messages = [DraftMessage(role=Role.USER, parts=parts)]
    if system is not None:
        messages.insert(0, DraftMessage(role=Role.SYSTEM, parts=(TextPart(text=system),)))
    without_audio = JsonFields({name: value for name, value in fields.raw.items() if name != "audio"})
    settings = _settings(without_audio, features, _MULTIMODAL)
    return replace(settings, model=model, messages=tuple(messages))


def _prompt(fields: JsonFields) -> str:
    prompt = fields.raw.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:  # pyright: ignore[reportUnknownArgumentType]
        prompt = prompt[0]  # pyright: ignore[reportUnknownVariableType]
    if prompt is None:
        raise InvalidRequestError("prompt is missing", code="missing_required_parameter", param="prompt")
    if not isinstance(prompt, str):
        several = "; several prompts and token ids are not supported" if isinstance(prompt, list) else ""
        raise fields.wrong_type("prompt", "a string", prompt, hint=several)
    return prompt


def _settings(fields: JsonFields, features: frozenset[str], known: frozenset[str]) -> ChatDraft:
    refuse_unsupported(fields)
    refuse_tools(fields)
    for name in ("return_reasoning", "include_reasoning"):
        if fields.flag(name, False):
            raise InvalidRequestError(
                f"{name} is not supported by this endpoint: its answers have one text",
                code="unsupported_parameter",
                param=name,
            )
    settings = read_settings(_with_logprobs_of_chat(fields), features=features, known=known)
    if (
        answers_with_data(settings.sampling.grammar)
        and not {"enable_thinking", "chat_template_kwargs"} & fields.raw.keys()
    ):
        # These answers have no place for a thought beside the data.
        settings = replace(settings, options=replace(settings.options, enable_thinking=False))
    return settings


def _with_logprobs_of_chat(fields: JsonFields) -> JsonFields:
    """Here logprobs is the number of alternatives, for chat it is a yes or no."""
    given = fields.raw.get("logprobs")
    if given is None or isinstance(given, bool):
        return fields
    count = fields.integer("logprobs")
    if count is None or not 0 <= count <= MAX_TOP_LOGPROBS:
        raise InvalidRequestError(f"logprobs is {count}, must be in [0, {MAX_TOP_LOGPROBS}]", param="logprobs")
    return JsonFields({**fields.raw, "logprobs": True, "top_logprobs": count})


def _medium(fields: JsonFields, name: str, text: str) -> MediaRef:
    kind = MediaKind.AUDIO if name == "audio" else MediaKind.IMAGE
    if text[:5].lower() == "data:" or text[:8].lower().startswith(("http://", "https://")):
        return MediaRef(kind=kind, url=text, param=name)
    format = fields.text("audio_format") if kind is MediaKind.AUDIO else None
    return MediaRef(kind=kind, base64=text, format=format, param=name)

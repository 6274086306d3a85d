"""Which fields a chat body may hold: understood, without effect, or refused. What stands nowhere here is unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from autoglm_gateway.answer_format import FORMAT_FIELDS
from autoglm_protocol.chat import ChatOptions
from autoglm_protocol.sampling import SamplingParams

SAMPLING_FIELDS = frozenset(field.name for field in fields(SamplingParams))
_OPTION_FIELDS = frozenset(field.name for field in fields(ChatOptions))
_ENVELOPE = frozenset(
    (
        "include_reasoning",
        "max_completion_tokens",
        "messages",
        "mm_processor_kwargs",
        "model",
        "reasoning_effort",
        "return_reasoning",
        "stream",
        "stream_options",
        "parallel_tool_calls",
        "thinking_token_budget",
        "tool_choice",
        "tools",
    )
)
# Bookkeeping for OpenAI's own platform: true of any answer, so nothing is lost by not acting on it.
WITHOUT_EFFECT_FIELDS = frozenset(
    (
        "metadata",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "request_id",
        "safety_identifier",
        "service_tier",
        "spaces_between_special_tokens",
        "store",
        "user",
    )
)
HARMLESS_VALUES: Mapping[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "skip_special_tokens": (True,),
    "verbosity": ("medium",),
}
"""Fields that are not supported, with the values that ask for what happens anyway."""

UNSUPPORTED_FIELDS = HARMLESS_VALUES.keys() | frozenset(
    (
        "audio",
        "chat_template",
        "documents",
        "functions",
        "length_penalty",
        "moderation",
        "prediction",
        "prompt_logprobs",
        "truncate_prompt_tokens",
        "use_beam_search",
        "web_search_options",
    )
)

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""OpenAI's words for `reasoning_effort`. All but the first mean the same here: the thought is the model's choice."""

KNOWN_FIELDS = SAMPLING_FIELDS | FORMAT_FIELDS | _OPTION_FIELDS | _ENVELOPE | WITHOUT_EFFECT_FIELDS | UNSUPPORTED_FIELDS

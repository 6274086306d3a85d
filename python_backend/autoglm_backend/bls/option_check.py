"""Options as raw Triton clients write them by hand: their types, and what no part of this server honours."""

from __future__ import annotations

from typing import Any

from autoglm_protocol.chat import ChatRequest
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.json_types import json_type

_TYPES: dict[str, tuple[type, ...]] = {
    "depth": (int, str, type(None)),
    "exit": (str, type(None)),
    "attention_window": (int, type(None)),
    "enable_thinking": (bool,),
    "max_reasoning_tokens": (int, type(None)),
    "max_reasoning_steps": (int, type(None)),
    "chat_template_kwargs": (dict,),
    "continue_final_message": (bool,),
    "add_generation_prompt": (bool,),
    "priority": (int,),
    "max_pixels": (int, type(None)),
    "min_pixels": (int, type(None)),
    "return_token_layers": (bool,),
}
MAX_PRIORITY = 1 << 30


def check_request(request: ChatRequest) -> None:
    """Raises InvalidRequestError naming the option."""
    options = request.options
    for name, types in _TYPES.items():
        value: Any = getattr(options, name)
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise InvalidRequestError(f"{name} must not be {json_type(value)}", code="invalid_type", param=name)
    if abs(options.priority) > MAX_PRIORITY:
        raise InvalidRequestError(f"priority must lie within +-{MAX_PRIORITY}", param="priority")

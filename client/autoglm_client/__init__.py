"""Python client of an AutoGLM-Phone server, and the `autoglm` command.

    async with AsyncAutoGLM("http://127.0.0.1:8000") as client:
        reply = await client.act("Open Bluetooth", image="examples/settings.png")
        reply.action.name, reply.action.point  # "Tap", (x, y) in 0-999 of the screenshot

Names load on first use, so that `autoglm --help` costs no HTTP library and a server-only installation needs none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoglm_client.agent import AgentSession, to_pixels
    from autoglm_client.client import AsyncAutoGLM
    from autoglm_client.errors import ConnectionFailedError, StreamBrokenError
    from autoglm_client.events import ClientEvent, Finished, ReasoningDelta, Started, TextDelta
    from autoglm_client.media import MediaError
    from autoglm_client.reply import ActionReply
    from autoglm_client.sync import AutoGLM

__all__ = [
    "ActionReply",
    "AgentSession",
    "AsyncAutoGLM",
    "AutoGLM",
    "ClientEvent",
    "ConnectionFailedError",
    "Finished",
    "MediaError",
    "ReasoningDelta",
    "Started",
    "StreamBrokenError",
    "TextDelta",
    "to_pixels",
]

_HOMES = {
    "ActionReply": "reply",
    "AgentSession": "agent",
    "AsyncAutoGLM": "client",
    "AutoGLM": "sync",
    "ClientEvent": "events",
    "ConnectionFailedError": "errors",
    "Finished": "events",
    "MediaError": "media",
    "ReasoningDelta": "events",
    "Started": "events",
    "StreamBrokenError": "errors",
    "TextDelta": "events",
    "to_pixels": "agent",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

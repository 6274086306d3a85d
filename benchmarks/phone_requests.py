"""What the users of locustfile.py ask. No benchmark by itself; needs no Locust, so that tests can send it too."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

Json = dict[str, Any]

_SCREEN = Path(__file__).resolve().parents[1] / "examples" / "settings.png"


def phone_requests() -> dict[str, Json]:
    """Streamed chats by name: about a screenshot, and in text alone."""
    picture = base64.b64encode(_SCREEN.read_bytes()).decode()
    screen: list[Json] = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
        {"type": "text", "text": "Open Bluetooth"},
    ]
    return {"screenshot": _chat(screen), "text": _chat("Open WeChat")}


def _chat(content: Any) -> Json:
    return {
        "model": "autoglm-phone-9b",
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": 128,
        "stream": True,
    }

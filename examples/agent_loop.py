"""A phone agent's loop: screenshot in, action out, until the model says finish. Needs the `[client]` extra.

Here the phone is two screenshots; on a real one, take them with `adb exec-out screencap -p` and carry the action out
with `adb shell input tap X Y`.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from PIL import Image

from autoglm_client import AgentSession, AsyncAutoGLM, to_pixels

EXAMPLES = Path(__file__).parent
PHONE = [("System Home", EXAMPLES / "home.png"), ("Settings", EXAMPLES / "settings.png")]


async def main() -> None:
    async with AsyncAutoGLM(os.environ.get("AUTOGLM_BASE_URL", "http://127.0.0.1:8000")) as client:
        session = AgentSession(client, "Open Bluetooth", max_tokens=256)
        for app, screenshot in PHONE:
            reply = await session.step(screenshot, app)
            print(f"{app}: {reply.thought}")
            if reply.action is None or reply.action.name == "finish":
                print(reply.action_text)
                return
            if reply.action.point is not None:
                x, y = to_pixels(reply.action.point, *Image.open(screenshot).size)
                print(f"  {reply.action.name} at pixel {x}, {y}")
            else:
                print(f"  {reply.action_text}")


asyncio.run(main())

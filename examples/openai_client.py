"""The OpenAI SDK, unchanged: a screenshot and an instruction, streamed. `pip install openai`"""

from __future__ import annotations

import base64
import os
from pathlib import Path

from openai import OpenAI

base_url = os.environ.get("AUTOGLM_BASE_URL", "http://127.0.0.1:8000")
screenshot = base64.b64encode((Path(__file__).parent / "settings.png").read_bytes()).decode()

with OpenAI(base_url=f"{base_url}/v1", api_key="EMPTY") as client:
    stream = client.chat.completions.create(
        model="autoglm-phone-9b",
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{screenshot}"}},
                    {"type": "text", "text": "Open Bluetooth"},
                ],
            }
        ],
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"depth": "auto"},
    )
    for chunk in stream:
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
        elif chunk.usage is not None:
            print(f"\n{chunk.usage.prompt_tokens} prompt tokens, {chunk.usage.completion_tokens} generated")

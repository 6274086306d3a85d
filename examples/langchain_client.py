"""LangChain's ChatOpenAI, unchanged, with the thought sent apart from the answer. `pip install langchain-openai`"""

from __future__ import annotations

import base64
import os
from pathlib import Path

from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI

base_url = os.environ.get("AUTOGLM_BASE_URL", "http://127.0.0.1:8000")
screenshot = base64.b64encode((Path(__file__).parent / "settings.png").read_bytes()).decode()

model = ChatOpenAI(
    model="autoglm-phone-9b",
    base_url=f"{base_url}/v1",
    api_key="EMPTY",
    temperature=0,
    streaming=True,
    extra_body={"enable_thinking": True, "return_reasoning": True},
)
question = HumanMessage(
    content=[
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{screenshot}"}},
        {"type": "text", "text": "Open Bluetooth"},
    ]
)
for chunk in model.stream([question]):
    print(chunk.content, end="", flush=True)
print()

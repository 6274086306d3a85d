"""For those who use Locust: streamed phone requests with a screenshot; first-token time is a statistic of its own.

    pip install locust
    locust -f benchmarks/locustfile.py --host http://127.0.0.1:8000

Locust shows the time to the first token as "first token" beside the whole answer. API key: AUTOGLM_API_KEY.
load.py needs no Locust and adds open-loop arrivals and goodput.
"""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path
from typing import Any

from locust import HttpUser, between, task

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
MODEL = "autoglm-phone-9b"


class PhoneAgent(HttpUser):
    wait_time = between(0.5, 2.0)

    def on_start(self) -> None:
        picture = base64.b64encode((EXAMPLES / "settings.png").read_bytes()).decode()
        self.picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}
        key = os.environ.get("AUTOGLM_API_KEY")
        self.headers = {} if key is None else {"authorization": f"Bearer {key}"}

    @task(3)
    def look_at_a_screen(self) -> None:
        self.ask("screenshot", [self.picture, {"type": "text", "text": "Open Bluetooth"}])

    @task(1)
    def open_an_app(self) -> None:
        self.ask("text", "Open WeChat")

    def ask(self, name: str, content: Any) -> None:
        body = {"model": MODEL, "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 128}
        began_s = time.perf_counter()
        is_first = True
        with self.client.post(
            "/v1/chat/completions",
            json={**body, "stream": True},
            headers={**self.headers, "cache-control": "no-store"},
            name=name,
            stream=True,
            catch_response=True,
        ) as response:
            if response.status_code != 200:
                response.failure(f"{response.status_code}: {response.text[:200]}")
                return
            for line in response.iter_lines():
                data = line.removeprefix(b"data: ")
                if data == b"[DONE]":
                    return
                if data.startswith(b'{"error"'):
                    response.failure(data.decode())
                    return
                if is_first and data and json.loads(data)["choices"][0]["delta"].get("content"):
                    is_first = False
                    self.environment.events.request.fire(
                        request_type="TTFT",
                        name="first token",
                        response_time=1e3 * (time.perf_counter() - began_s),
                        response_length=0,
                        exception=None,
                        context={},
                    )
            response.failure("the stream was cut off")

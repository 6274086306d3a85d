"""For those who use Locust: streamed phone requests with a screenshot; first-token time is a statistic of its own.

    pip install locust
    locust -f benchmarks/locustfile.py --host http://127.0.0.1:8000

Locust shows the time to the first token as "first token" beside the whole answer. API key: AUTOGLM_API_KEY.
load.py needs no Locust and adds open-loop arrivals and goodput.
"""

from __future__ import annotations

import json
import os
import time

from locust import HttpUser, between, task
from phone_requests import phone_requests


class PhoneAgent(HttpUser):
    wait_time = between(0.5, 2.0)

    def on_start(self) -> None:
        self.requests = phone_requests()
        key = os.environ.get("AUTOGLM_API_KEY")
        self.headers = {} if key is None else {"authorization": f"Bearer {key}"}

    @task(3)
    def look_at_a_screen(self) -> None:
        self.ask("screenshot")

    @task(1)
    def open_an_app(self) -> None:
        self.ask("text")

    def ask(self, name: str) -> None:
        began_s = time.perf_counter()
        is_first = True
        with self.client.post(
            "/v1/chat/completions",
            json=self.requests[name],
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

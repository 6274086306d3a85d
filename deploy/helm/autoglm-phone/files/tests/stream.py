"""A stream comes in pieces, says one finish reason, and ends with [DONE]."""

import json

from _gateway import post, user

response = post({"messages": user("Open WeChat"), "max_tokens": 64, "temperature": 0, "stream": True})
assert response.headers["content-type"].startswith("text/event-stream"), response.headers
data = [line[6:].strip() for line in response if line.startswith(b"data: ")]
assert data[-1] == b"[DONE]", data
choices = [choice for chunk in map(json.loads, data[:-1]) for choice in chunk["choices"]]
text = "".join(choice["delta"].get("content") or "" for choice in choices)
reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
assert text, data
assert len(reasons) == 1, reasons
print(f"stream: {len(data) - 1} chunks: {text}")

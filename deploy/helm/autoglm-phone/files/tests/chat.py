"""A question gets an answer with text, a finish reason and a usage that adds up."""

import json

from _gateway import post, user

answer = json.load(post({"messages": user("Open WeChat"), "max_tokens": 64, "temperature": 0}))
choice, usage = answer["choices"][0], answer["usage"]
assert choice["message"]["content"], answer
assert choice["finish_reason"] in ("stop", "length"), answer
assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0, usage
print("chat:", choice["message"]["content"])

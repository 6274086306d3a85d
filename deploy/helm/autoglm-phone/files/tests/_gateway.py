"""What the tests share: the gateway's address from the environment, and one POST. The standard library only."""

import json
import os
import ssl
import urllib.request
from http.client import HTTPResponse

MODEL = os.environ["AUTOGLM_MODEL"]


def post(body: dict[str, object]) -> HTTPResponse:
    """POST /v1/chat/completions. Raises urllib.error.HTTPError for a refusal."""
    headers = {"content-type": "application/json"}
    if key := os.environ.get("AUTOGLM_API_KEY"):
        headers["authorization"] = f"Bearer {key}"
    request = urllib.request.Request(
        os.environ["AUTOGLM_URL"] + "/v1/chat/completions", json.dumps({"model": MODEL, **body}).encode(), headers
    )
    ca_file = os.environ.get("AUTOGLM_CA_FILE")
    context = ssl.create_default_context(cafile=ca_file) if ca_file else None
    return urllib.request.urlopen(request, timeout=float(os.environ["AUTOGLM_TIMEOUT_S"]), context=context)


def user(content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": content}]

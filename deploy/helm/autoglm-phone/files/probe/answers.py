"""Ends with status 0 where Triton's models answer: tokens were made since the last look, or one is made now.

Triton calls a model ready whose process hangs. As long as tokens come nothing is asked, so a busy server is never
taken for one that hangs; and the decoder runs what is asked before everything else. The standard library only.

python answers.py SECONDS STATE_FILE [HTTP_PORT METRICS_PORT]
"""

import http.client
import json
import signal
import sys
from pathlib import Path

# the lowest priority is the first to run
_QUESTION = {
    "messages": [{"role": "user", "content": "Hi"}],
    "sampling": {"max_tokens": 1, "temperature": 0},
    "options": {"priority": -(1 << 30)},
}
_OVER = ("finished", "cancelled")


def main(seconds: float, state: Path, http_port: int, metrics_port: int) -> str:
    """What is wrong; empty when nothing is. Raises OSError where nobody listens."""
    signal.signal(signal.SIGALRM, _too_late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    made = tokens_made(metrics_port)
    was_made = state.read_text() if state.exists() else ""
    state.write_text(made)
    if made != was_made:
        return ""
    return ask(http_port)


def tokens_made(port: int) -> str:
    """The counters of generated tokens, as they stand on the page."""
    _, page = fetch(port, "GET", "/metrics")
    return "\n".join(sorted(line for line in page.splitlines() if line.startswith("autoglm_tokens_total{")))


def ask(port: int) -> str:
    """Asks for one token. What is wrong; empty when nothing is."""
    body = json.dumps({name: json.dumps(value) for name, value in _QUESTION.items()})
    status, text = fetch(port, "POST", "/v2/models/autoglm_phone/generate_stream", body)
    messages = [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:")]
    if any(json.loads(message["event"])["type"] in _OVER for message in messages if "event" in message):
        return ""
    # whoever reads the question and refuses it does not hang; a server that is full, or has lost a process, may
    is_refused = "InvalidRequestError code=" in text
    return "" if is_refused else f"no token was made, and the answer is {status} {text.strip()[:500]}"


def fetch(port: int, method: str, path: str, body: str | None = None) -> tuple[int, str]:
    """Status and text, read to the end: Triton may count a stream that is dropped just there as in flight for ever."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request(method, path, body, {"content-type": "application/json"})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


def _too_late(*_: object) -> None:
    sys.exit("Triton is live, and no token was made in time")


if __name__ == "__main__":
    _seconds, _state, *_ports = sys.argv[1:]
    _http_port, _metrics_port = map(int, _ports or (8000, 8002))
    sys.exit(main(float(_seconds), Path(_state), _http_port, _metrics_port) or 0)

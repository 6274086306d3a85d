"""Episodes played through a real HTTP server with a scripted model behind it."""

from __future__ import annotations

import base64
import io
import json
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from PIL import Image

from autoglm_training.evaluation.episodes import Played, episode_figures, play, play_many, server
from autoglm_training.world.episodes import Episode, make_episode
from autoglm_training.world.wire import Message

SEED = 21
Answer = Callable[[dict[str, Any]], tuple[int, Any]]


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """The address of a server that gives `answer` of each request's JSON: status and body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/chat/completions"
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = answer(asked)
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()


def said(text: str, **more: str) -> tuple[int, Any]:
    return 200, {"choices": [{"message": {"role": "assistant", "content": text, **more}}]}


def first_episode() -> Episode:
    rng = random.Random(SEED)
    while len((episode := make_episode(rng, "test")).steps) > 4:
        pass
    return episode


def test_a_model_that_answers_right_succeeds_through_the_server() -> None:
    episode, asked = first_episode(), []
    replies = iter(step.task.reply for step in episode.steps)

    def answer(request: dict[str, Any]) -> tuple[int, Any]:
        asked.append(request)
        return said(next(replies))

    with serving(answer) as url:
        (played,) = play_many(server(url, "tiny"), 1, SEED)
    assert played.success
    assert played.right_steps == played.turns == len(episode.steps) == len(asked)


def test_the_server_gets_the_conversation_and_the_newest_screenshot() -> None:
    episode, asked = first_episode(), []
    replies = iter(step.task.reply for step in episode.steps)

    def answer(request: dict[str, Any]) -> tuple[int, Any]:
        asked.append(request)
        return said(next(replies))

    with serving(answer) as url:
        play_many(server(url, "tiny"), 1, SEED)
    last = asked[-1]
    assert (last["model"], last["temperature"]) == ("tiny", 0)
    assert [m["role"] for m in last["messages"]] == ["system", *["user", "assistant"] * (len(asked) - 1), "user"]
    assert episode.instruction in last["messages"][1]["content"] or len(asked) == 1
    picture, text = last["messages"][-1]["content"]
    png = base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.width) == ("PNG", round(episode.steps[0].scene.width_px * 27 / 7))
    assert "current_app" in text["text"]


def test_a_thought_that_the_server_hands_out_apart_belongs_to_the_reply() -> None:
    replies = iter(step.task for step in first_episode().steps)

    def answer(_: dict[str, Any]) -> tuple[int, Any]:
        task = next(replies)
        return said(f"<answer>{task.action}</answer>", reasoning_content=task.think)

    with serving(answer) as url:
        (played,) = play_many(server(url, "tiny"), 1, SEED)
    assert played.success


def test_a_model_that_talks_nonsense_fails_every_episode() -> None:
    with serving(lambda _: said("hm")) as url:
        played = play_many(server(url, "tiny"), 3, SEED)
    assert [p.success for p in played] == [False] * 3
    assert {p.turns for p in played} == {4}


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ((404, {"error": {"message": "no such model"}}), "404.*no such model"),
        ((200, {"detail": "hello"}), "not an OpenAI-compatible"),
        ((200, []), "not an OpenAI-compatible"),
    ],
    ids=["refusal", "other JSON", "no object"],
)
def test_a_server_that_refuses_or_answers_otherwise_is_named(answer: tuple[int, Any], named: str) -> None:
    with serving(lambda _: answer) as url, pytest.raises(OSError, match=f"{url}: .*{named}"):
        play_many(server(url, "tiny"), 1, SEED)


def played_with(answers: Sequence[str], kind: str) -> Played:
    episode = make_episode(random.Random(4), "test", kind=kind)
    given = iter(answers or [step.task.reply for step in episode.steps])

    def ask(messages: Sequence[Message], picture: Image.Image) -> str:
        return next(given)

    return play(episode, ask, random.Random(1))


def test_episodes_are_counted_by_kind_with_their_right_turns() -> None:
    played = [played_with([], "chat"), played_with(["hm"] * 9, "chat"), played_with([], "toggle")]
    kinds: Any = episode_figures(played)["by_kind"]
    assert {kind: (row["n"], row["success"]) for kind, row in kinds.items()} == {
        "all": (3, 0.6667),
        "chat": (2, 0.5),
        "toggle": (1, 1.0),
    }
    assert kinds["chat"]["turns"] == 2 + 4
    assert kinds["chat"]["right_turns"] == pytest.approx(2 / 6, abs=1e-4)

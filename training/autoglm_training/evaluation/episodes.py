"""Episodes played through a running server: the model's actions move a simulated phone from screen to screen."""

from __future__ import annotations

import base64
import http.client
import io
import json
import random
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from autoglm_protocol.actions import split_reply
from autoglm_training.evaluation.held_out import PHONE_SCALE
from autoglm_training.world.elements import Split
from autoglm_training.world.episodes import Episode, make_episode
from autoglm_training.world.screens import render
from autoglm_training.world.simulator import Simulator
from autoglm_training.world.wire import Message, agent_messages

Ask = Callable[[Sequence[Message], Image.Image], str]
"""(role, text) of all turns and the newest screenshot, which stands before the last turn's text -> the reply."""
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """How an episode went. right_steps: turns whose action was the expected one, or undid a wrong one."""

    episode: Episode
    success: bool
    turns: int
    right_steps: int


def play(episode: Episode, ask: Ask, rng: random.Random) -> Played:
    """Until the model finishes or has made more mistakes than the simulator forgives."""
    simulator = Simulator(episode)
    turns = right = 0
    while True:
        picture = render(simulator.screen, PHONE_SCALE).image.convert("RGB")
        messages = agent_messages(simulator.expected, rng, simulator.history(), short_system=True)
        reply = ask(messages, picture)
        simulator.record(reply)
        outcome = simulator.apply(split_reply(reply).action_text)
        turns, right = turns + 1, right + outcome.correct
        if outcome.finished:
            return Played(episode=episode, success=outcome.success, turns=turns, right_steps=right)


def play_many(ask: Ask, count: int, seed: int, *, split: Split = "test", max_steps: int = 4) -> list[Played]:
    """`count` held-out episodes of at most `max_steps` steps."""
    rng = random.Random(seed)
    played: list[Played] = []
    while len(played) < count:
        episode = make_episode(rng, split)
        if len(episode.steps) <= max_steps:
            played.append(play(episode, ask, rng))
    return played


def server(url: str, model: str) -> Ask:
    """Asks an OpenAI-compatible server at `url` ("http://host:port"), greedily.

    The result raises OSError naming `url` when the server refuses, answers otherwise or cannot be reached.
    """

    def ask(messages: Sequence[Message], picture: Image.Image) -> str:
        data = io.BytesIO()
        picture.save(data, format="PNG")
        image = {"url": "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()}
        sent: list[dict[str, object]] = [{"role": role, "content": text} for role, text in messages]
        parts = [{"type": "image_url", "image_url": image}, {"type": "text", "text": messages[-1][1]}]
        sent[-1] = {"role": messages[-1][0], "content": parts}
        body = json.dumps({"model": model, "messages": sent, "temperature": 0, "max_tokens": 80}).encode()
        request = urllib.request.Request(
            f"{url}/v1/chat/completions", data=body, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                answer = json.load(response)["choices"][0]["message"]
            return _with_thought(answer)
        except urllib.error.HTTPError as error:
            raise OSError(f"{url}: {error}: {error.read(300).decode(errors='replace')}") from error
        except (OSError, http.client.HTTPException) as error:
            raise OSError(f"{url}: {error}") from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise OSError(f"{url}: this is not an OpenAI-compatible server's answer ({error!r})") from error

    return ask


def episode_figures(played: Sequence[Played]) -> dict[str, object]:
    """By kind and over all: how many, the share that succeeded, turns, and the share of them that was right."""
    kinds: dict[str, list[Played]] = {}
    for item in played:
        for kind in (item.episode.kind, "all"):
            kinds.setdefault(kind, []).append(item)
    return {"by_kind": {kind: _figures(items) for kind, items in sorted(kinds.items())}}


def _figures(played: Sequence[Played]) -> dict[str, object]:
    turns = sum(item.turns for item in played)
    return {
        "n": len(played),
        "success": round(sum(item.success for item in played) / len(played), 4),
        "turns": turns,
        "right_turns": round(sum(item.right_steps for item in played) / turns, 4),
    }


def _with_thought(answer: dict[str, str | None]) -> str:
    """The reply as the model wrote it, also when the server hands the thought out apart."""
    content, thought = answer.get("content") or "", answer.get("reasoning_content")
    return content if not thought or "</think>" in content else f"<think>{thought}</think>{content}"

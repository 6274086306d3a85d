"""A deployment profile on the default checkpoint: `edge`, from which `mobile` and `cloud` differ by values only, with
encoders that leave after a second instead of five minutes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.raw_triton import eventually
from tests.e2e.stack import Stack, running_stack
from tests.e2e.test_chat_http import ask, picture, png

from autoglm_protocol.actions import parse_action, split_reply

pytestmark = pytest.mark.triton

ROOT = Path(__file__).parents[2]
GONE = r"vision_encoder: offloaded after idling, (\S+) MB of memory given back"
BACK = r"vision_encoder: loaded again, (\S+) MB in \S+ s"


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    checkpoint = ROOT / "checkpoints" / "autoglm-phone-tiny"
    options = ["--profile", "edge", "--offload-encoders", "1"]
    with running_stack(checkpoint, tmp_path_factory.mktemp("logs"), options) as stack:
        yield stack


def screenshot(name: str) -> dict[str, Any]:
    return picture((ROOT / "examples" / f"{name}.png").read_bytes())


def megabytes(stack: Stack, line: str) -> list[float]:
    """What the launcher's lines of that form said so far."""
    return [float(match[1]) for match in (re.search(line, shown) for shown in stack.lines) if match]


def test_a_screenshot_is_answered_by_an_action(edge: Stack) -> None:
    content = [screenshot("home"), {"type": "text", "text": "Open WeChat"}]

    answer = ask(edge, content, max_tokens=80, ignore_eos=False)

    parse_action(split_reply(answer["choices"][0]["message"]["content"]).action_text)
    assert answer["dynamic_graph"]["exit_mode"] == "lossless"
    assert answer["dynamic_graph"]["encoders_run"] == ["vision"]


def test_a_request_takes_fewer_pixels_than_the_deployment_allows(edge: Stack) -> None:
    tokens = [
        ask(edge, [screenshot("shop")], max_tokens=2, **budget)["usage"]["prompt_tokens_details"]["image_tokens"]
        for budget in ({}, {"mm_processor_kwargs": {"max_pixels": 50 * 784}})
    ]

    assert tokens[1] <= 50 < tokens[0]


def test_an_idle_encoder_gives_its_memory_back_and_serves_the_next_picture(edge: Stack) -> None:
    assert eventually(lambda: edge.metric("autoglm_vision_encoder_weights_bytes") == 0, within_s=60)
    saved = edge.metric("autoglm_vision_encoder_offload_saved_bytes")
    reloads = len(megabytes(edge, BACK))

    answer = ask(edge, [picture(png("olive", (300, 500)))], max_tokens=2)

    assert answer["dynamic_graph"]["encoders_run"] == ["vision"]
    assert eventually(lambda: len(megabytes(edge, BACK)) > reloads, within_s=10)
    assert saved > 0.5 * megabytes(edge, BACK)[-1] * 1e6
    assert f"{saved / 1e6:.1f}" in [f"{size:.1f}" for size in megabytes(edge, GONE)]

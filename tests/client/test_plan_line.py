from __future__ import annotations

import pytest

from autoglm_client.plan_line import graph_parts, plan_line
from autoglm_client.reply import ActionReply
from autoglm_protocol.events import FinishReason, Usage


def test_only_what_is_known_is_said() -> None:
    reply = ActionReply(
        text="",
        thought=None,
        action_text="",
        action=None,
        finish_reason=FinishReason.LENGTH,
        usage=Usage(completion_tokens=11),
        dynamic_graph=None,
        first_token_s=0.5,
        duration_s=1.0,
    )
    assert plan_line(reply) == "first token 500 ms · 11 tokens/s · cut off after 11 tokens"


def test_an_answer_in_one_message_has_a_rate_that_can_be_true() -> None:
    reply = ActionReply(
        text="",
        thought=None,
        action_text="",
        action=None,
        finish_reason=FinishReason.STOP,
        usage=Usage(completion_tokens=13),
        dynamic_graph=None,
        first_token_s=0.26,
        duration_s=0.26,
    )
    assert plan_line(reply) == "first token 260 ms · 50 tokens/s"


@pytest.mark.parametrize(
    ("run", "skipped", "words"),
    [
        (["vision"], ["speech"], ["vision run", "speech skipped"]),
        (["speech"], [], ["vision from cache", "speech run"]),
        (["vision_encoder", "speech_encoder"], [], ["vision run", "speech run"]),
    ],
)
def test_each_encoder_was_run_skipped_or_cached(run: list[str], skipped: list[str], words: list[str]) -> None:
    assert graph_parts({"encoders_run": run, "encoders_skipped": skipped}) == words


def test_a_mode_other_than_fixed_is_named() -> None:
    assert graph_parts({"depth": 12, "num_layers": 24, "exit_mode": "lossless"}) == ["12 of 24 layers (lossless)"]

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_backend.bls.planner import (
    TOKENS_PER_REASONING_STEP,
    CheckpointFacts,
    Deployment,
    RequestFacts,
    is_direct_command,
    load_checkpoint_facts,
    plan,
)
from autoglm_backend.models.config import CheckpointError
from autoglm_backend.profiles import PROFILES, STANDARD
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.plan import DepthBy, ExitMode

CHECKPOINT = CheckpointFacts(num_layers=24, exits=(6, 12, 18), auto_depths={"direct_text": 6}, has_speech=True)
ON, OFF = Deployment(), Deployment(dynamic_graph=False)


def facts(text: str = "Open Bluetooth", **fields: object) -> RequestFacts:
    given_fields = {"num_images": 0, "num_audios": 0, "last_user_text": text, **fields}
    return RequestFacts(**given_fields)  # pyright: ignore[reportArgumentType]


@given(images=st.integers(0, 3), audios=st.integers(0, 3))
def test_encoders_run_only_when_their_media_is_there(images: int, audios: int) -> None:
    made = plan(facts(num_images=images, num_audios=audios), CHECKPOINT, ON)
    assert (made.run_vision, made.run_speech) == (images > 0, audios > 0)


@given(images=st.integers(0, 3), audios=st.integers(0, 3), depth=st.sampled_from([None, "auto", 6, 12, 18, 24, "full"]))
def test_dynamic_graph_off_runs_everything_at_full_depth(images: int, audios: int, depth: int | str | None) -> None:
    made = plan(facts(num_images=images, num_audios=audios, depth=depth), CHECKPOINT, OFF)
    assert (made.run_vision, made.run_speech, made.depth, made.enabled) == (True, True, 24, False)


@pytest.mark.parametrize(("depth", "layers"), [(6, 6), (12, 12), (18, 18), (24, 24), ("full", 24), ("12", 12)])
def test_requested_depth_is_taken(depth: int | str, layers: int) -> None:
    made = plan(facts(depth=depth, exit="fixed"), CHECKPOINT, ON)
    assert (made.depth, made.exit_mode) == (layers, ExitMode.FIXED)


@pytest.mark.parametrize("depth", [7, 0, -6, "deep", True, 6.0])
def test_other_depths_are_refused_naming_the_exits(depth: object) -> None:
    with pytest.raises(InvalidRequestError, match="6, 12, 18, 24") as caught:
        plan(facts(depth=depth), CHECKPOINT, ON)
    assert caught.value.param == "depth"


def test_auto_runs_a_short_command_at_the_depth_that_the_checkpoint_names() -> None:
    assert plan(facts("打开蓝牙", exit="fixed"), CHECKPOINT, ON).depth == 6


@pytest.mark.parametrize("fields", [{"num_images": 1}, {"num_audios": 1}])
def test_auto_runs_media_at_full_depth(fields: dict[str, int]) -> None:
    assert plan(facts(exit="fixed", **fields), CHECKPOINT, ON).depth == 24


@pytest.mark.parametrize(
    ("fields", "by", "layers"),
    [
        ({"exit": "fixed", "last_user_text": "Go back"}, DepthBy.RULE, 6),
        ({"exit": "fixed", "num_images": 1}, DepthBy.PROBE, 24),
        ({"exit": "fixed", "last_user_text": "what is on the screen?"}, DepthBy.PROBE, 24),
        ({"exit": "fixed", "depth": "full"}, DepthBy.REQUEST, 24),
        ({"exit": "lossless", "num_images": 1}, DepthBy.MODE, 24),
        ({"exit": "certified", "num_images": 1}, DepthBy.MODE, 24),
    ],
)
def test_the_router_is_asked_where_rules_find_nothing_and_the_mode_has_a_choice(
    fields: dict[str, Any], by: DepthBy, layers: int
) -> None:
    checkpoint = replace(CHECKPOINT, has_certificate=True, has_router=True)
    made = plan(facts(**{"last_user_text": "hello", **fields}), checkpoint, ON)
    assert (made.depth_by, made.depth) == (by, layers)


def test_the_plan_says_what_was_asked_and_who_chose() -> None:
    report = plan(facts("Go back", exit="fixed"), CHECKPOINT, ON).report(encoders_run=(), embedding_cache_hits=0)
    assert (report["depth_asked"], report["depth"], report["depth_by"]) == ("auto", 6, "rule")


def test_auto_runs_at_full_depth_where_the_checkpoint_names_none() -> None:
    assert plan(facts(exit="fixed"), CheckpointFacts(num_layers=24, exits=(6,)), ON).depth == 24


@pytest.mark.parametrize(
    ("text", "is_direct"),
    [
        ("Go back", True),
        ("打开微信", True),
        ("who are you?", True),
        ("你是谁？", True),
        ("Which of my notes is the longest", False),
        ("今天天气怎么样", False),
        ("Is Bluetooth on?", False),
        ("x" * 121, False),
        ("", False),
        ('Open Wi-Fi\n\n{"current_app": "System Home"}', True),
        ('** Screen Info **\n\n{"current_app": "Settings"}', False),
        ('{"current_app": "Settings"}', False),
    ],
)
def test_direct_commands(text: str, is_direct: bool) -> None:
    assert is_direct_command(text) == is_direct


@given(st.text())
def test_any_text_is_judged(text: str) -> None:
    is_direct_command(text)


FIXED, LOSSLESS, CERTIFIED = ExitMode.FIXED, ExitMode.LOSSLESS, ExitMode.CERTIFIED
WITH_CERTIFICATE = replace(CHECKPOINT, has_certificate=True)
WITHOUT_EXITS = CheckpointFacts(num_layers=24)


@pytest.mark.parametrize(
    ("depth", "exit", "mode", "layers"),
    [
        (None, None, LOSSLESS, 24),
        ("auto", None, LOSSLESS, 24),
        ("full", None, LOSSLESS, 24),
        (6, None, FIXED, 6),
        ("12", None, FIXED, 12),
        (24, None, FIXED, 24),
        (None, "lossless", LOSSLESS, 24),
        ("auto", "lossless", LOSSLESS, 24),
        ("full", "lossless", LOSSLESS, 24),
        (24, "lossless", LOSSLESS, 24),
        (None, "certified", CERTIFIED, 24),
        ("auto", "certified", CERTIFIED, 24),
        ("full", "certified", CERTIFIED, 24),
        (24, "certified", CERTIFIED, 24),
        (None, "fixed", FIXED, 6),
        ("auto", "fixed", FIXED, 6),
        ("full", "fixed", FIXED, 24),
        (18, "fixed", FIXED, 18),
    ],
)
def test_depth_and_exit_together(depth: int | str | None, exit: str | None, mode: ExitMode, layers: int) -> None:
    made = plan(facts(depth=depth, exit=exit), WITH_CERTIFICATE, ON)
    assert (made.exit_mode, made.depth) == (mode, layers)


@pytest.mark.parametrize("depth", [None, "auto", "full", 24])
def test_a_checkpoint_without_exits_runs_all_layers(depth: int | str | None) -> None:
    made = plan(facts(depth=depth), WITHOUT_EXITS, ON)
    assert (made.exit_mode, made.depth) == (FIXED, 24)


@pytest.mark.parametrize(
    ("fields", "checkpoint", "words"),
    [
        ({"exit": "certified"}, CHECKPOINT, "exits/certificate.json"),
        ({"exit": "certified"}, WITHOUT_EXITS, "exits/exits.json"),
        ({"exit": "early"}, CHECKPOINT, '"fixed", "lossless", "certified"'),
        ({"exit": "lossless", "depth": 6}, CHECKPOINT, "depth cannot be 6"),
        ({"exit": "certified", "depth": 6}, WITH_CERTIFICATE, "depth cannot be 6"),
        ({"exit": "lossless"}, WITHOUT_EXITS, "exits/exits.json"),
    ],
)
def test_exit_modes_that_cannot_be_are_refused(
    fields: dict[str, object], checkpoint: CheckpointFacts, words: str
) -> None:
    with pytest.raises(InvalidRequestError, match=words) as caught:
        plan(facts(**fields), checkpoint, ON)
    assert caught.value.param == "exit"


@pytest.mark.parametrize(
    ("deployment", "asked", "mode", "layers"),
    [
        ({"default_exit": "fixed"}, {}, FIXED, 6),
        ({"default_exit": "fixed"}, {"exit": "lossless"}, LOSSLESS, 24),
        ({"default_exit": "fixed", "default_depth": "full"}, {}, FIXED, 24),
        ({"default_exit": "fixed", "default_depth": "full"}, {"depth": "auto"}, FIXED, 6),
        ({"default_depth": "full"}, {}, LOSSLESS, 24),
        ({"default_depth": "12"}, {}, FIXED, 12),
        ({"default_depth": "12"}, {"exit": "fixed"}, FIXED, 12),
        ({"default_depth": "12"}, {"exit": "lossless"}, LOSSLESS, 24),
        ({"default_depth": "12"}, {"depth": "auto"}, LOSSLESS, 24),
        ({"default_exit": "certified"}, {}, CERTIFIED, 24),
        ({"default_exit": "certified"}, {"depth": 6}, FIXED, 6),
        ({"default_exit": "lossless"}, {"depth": 18}, FIXED, 18),
    ],
)
def test_a_request_goes_before_the_deployments_defaults(
    deployment: dict[str, str], asked: dict[str, Any], mode: ExitMode, layers: int
) -> None:
    made = plan(facts(**asked), WITH_CERTIFICATE, Deployment(**deployment))  # pyright: ignore[reportArgumentType]
    assert (made.exit_mode, made.depth) == (mode, layers)


@pytest.mark.parametrize(
    ("deployment", "checkpoint", "words"),
    [
        ({"default_exit": "lossless"}, WITHOUT_EXITS, 'default_exit cannot be: exit "lossless" needs exit heads'),
        ({"default_exit": "certified"}, CHECKPOINT, 'default_exit cannot be: exit "certified" needs a certificate'),
        ({"default_depth": "7"}, CHECKPOINT, "default_depth cannot be: depth is 7, must be"),
        ({"default_depth": "6", "default_exit": "lossless"}, CHECKPOINT, "default_exit cannot be: .* cannot be 6"),
    ],
)
def test_defaults_that_a_checkpoint_cannot_do_are_a_start_error(
    deployment: dict[str, str], checkpoint: CheckpointFacts, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        Deployment(**deployment).check(checkpoint)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_every_profile_fits_checkpoints_with_and_without_exits(name: str) -> None:
    for checkpoint in (CHECKPOINT, WITHOUT_EXITS):
        Deployment.of(PROFILES[name], {}).check(checkpoint)


def test_a_certificate_counts_when_its_gates_are_there(tmp_path: Path) -> None:
    (tmp_path / "exits").mkdir()
    (tmp_path / "exits" / "exits.json").write_text('{"depths": [6]}')
    (tmp_path / "exits" / "certificate.json").write_text("{}")
    assert not load_checkpoint_facts(tmp_path, 24).has_certificate
    (tmp_path / "exits" / "gates.json").write_text("{}")
    assert load_checkpoint_facts(tmp_path, 24).has_certificate
    assert not load_checkpoint_facts(tmp_path, 24).has_router
    (tmp_path / "exits" / "router.json").write_text("{}")
    assert load_checkpoint_facts(tmp_path, 24).has_router


def test_attention_is_narrowed_when_asked_for() -> None:
    checkpoint = replace(CHECKPOINT, least_window=256)
    assert plan(facts(attention_window=256), checkpoint, ON).attention_window == 256
    assert plan(facts(attention_window=256), checkpoint, OFF).attention_window is None
    assert plan(facts(), checkpoint, ON).attention_window is None


@pytest.mark.parametrize(
    ("window", "least", "complaint"),
    [
        (256, None, "allows no narrower attention window"),
        (255, 256, "whole number from 256"),
        (True, 1, "whole number from 1"),
        ("512", 256, "whole number from 256"),
    ],
)
def test_windows_that_a_checkpoint_does_not_bear_are_refused(window: object, least: int | None, complaint: str) -> None:
    with pytest.raises(InvalidRequestError, match=complaint) as refusal:
        plan(facts(attention_window=window), replace(CHECKPOINT, least_window=least), ON)
    assert refusal.value.param == "attention_window"


def test_audio_without_a_speech_encoder_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="no speech encoder"):
        plan(facts(num_audios=1), CheckpointFacts(num_layers=24), ON)


@pytest.mark.parametrize(
    ("fields", "budget"),
    [
        ({}, None),
        ({"max_reasoning_tokens": 40}, 40),
        ({"max_reasoning_steps": 3}, 3 * TOKENS_PER_REASONING_STEP),
        ({"max_reasoning_tokens": 40, "max_reasoning_steps": 1}, TOKENS_PER_REASONING_STEP),
        ({"max_reasoning_steps": 0}, 0),
    ],
)
def test_reasoning_budget_is_the_tighter_limit(fields: dict[str, int], budget: int | None) -> None:
    assert plan(facts(**fields), CHECKPOINT, ON).reasoning_budget_tokens == budget


@pytest.mark.parametrize("value", ["False", "0", "no", "OFF"])
def test_environment_turns_the_graph_off(value: str) -> None:
    assert not Deployment.of(STANDARD, {"ENABLE_DYNAMIC_GRAPH": value}).dynamic_graph


def test_environment_that_says_neither_is_an_error() -> None:
    with pytest.raises(ValueError, match="maybe"):
        Deployment.of(STANDARD, {"ENABLE_DYNAMIC_GRAPH": "maybe"})


def test_the_least_window_is_the_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "exits").mkdir()
    (tmp_path / "exits" / "exits.json").write_text('{"depths": [6], "attention_window": {"least": 256}}')
    assert load_checkpoint_facts(tmp_path, 24).least_window == 256


def test_auto_depth_that_is_no_exit_is_refused_at_load(tmp_path: Path) -> None:
    (tmp_path / "exits").mkdir()
    (tmp_path / "exits" / "exits.json").write_text('{"depths": [6], "auto": {"direct_text": 7}}')
    with pytest.raises(CheckpointError, match=r"auto\.direct_text is 7"):
        load_checkpoint_facts(tmp_path, 24)

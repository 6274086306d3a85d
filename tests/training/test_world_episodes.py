import json
import random

import pytest

from autoglm_training.world.corpus import corpus
from autoglm_training.world.elements import SPLITS, Split
from autoglm_training.world.episodes import EPISODE_KINDS, make_episode
from autoglm_training.world.instructions import text_task
from autoglm_training.world.labels import LANGUAGES, Language
from autoglm_training.world.simulator import Simulator
from autoglm_training.world.wire import agent_messages


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", EPISODE_KINDS)
def test_the_expected_actions_succeed(kind: str, language: Language, split: Split):
    rng = random.Random(14)
    for _ in range(10):
        episode = make_episode(rng, split, kind=kind, language=language)
        simulator = Simulator(episode)
        outcomes = [simulator.apply(step.task.action) for step in episode.steps]
        assert all(outcome.correct for outcome in outcomes)
        assert [outcome.finished for outcome in outcomes] == [False] * (len(outcomes) - 1) + [True]
        assert outcomes[-1].success


def test_a_wrong_tap_leaves_the_screen():
    episode = make_episode(random.Random(1), "train", kind="scroll")
    simulator = Simulator(episode)
    before = simulator.screen
    outcome = simulator.apply('do(action="Tap", element=[1,1])')
    assert outcome.screen == before
    assert not outcome.correct
    assert not outcome.finished


def test_finishing_too_early_fails():
    simulator = Simulator(make_episode(random.Random(2), "train", kind="toggle"))
    outcome = simulator.apply('finish(message="Done.")')
    assert outcome.finished
    assert not outcome.success


def test_too_many_mistakes_end_the_episode():
    simulator = Simulator(make_episode(random.Random(3), "train", kind="toggle"), max_mistakes=1)
    assert not simulator.apply("garbled").finished
    assert simulator.apply("garbled").finished
    with pytest.raises(ValueError, match="over"):
        simulator.apply("garbled")


def test_the_other_language_s_app_name_launches_it_too():
    rng = random.Random(4)
    episode = make_episode(rng, "train", kind="toggle", language="zh")
    while "Launch" not in episode.steps[0].task.action:
        episode = make_episode(rng, "train", kind="toggle", language="zh")
    assert Simulator(episode).apply('do(action="Launch", app="Settings")').correct


def test_a_toggled_switch_shows_its_new_state():
    episode = make_episode(random.Random(5), "train", kind="scroll", language="en")
    simulator = Simulator(episode)
    simulator.apply(episode.steps[0].task.action)
    x, y = (int(part) for part in episode.steps[1].task.action.split("[")[1].split("]")[0].split(","))
    before = simulator.screen.at_999(x, y)
    after = simulator.apply(episode.steps[1].task.action).screen.at_999(x, y)
    assert before is not None
    assert after is not None
    assert before.label == after.label
    assert before.on is not after.on


def test_the_first_message_is_the_open_autoglm_wire_format():
    task = text_task(random.Random(6), "train", family="launch", language="zh", app="微信")
    messages = agent_messages(task, random.Random(0))
    assert [role for role, _ in messages] == ["system", "user"]
    assert messages[0][1].startswith("今天的日期是: 20")
    instruction, info = messages[1][1].split("\n\n")
    assert instruction == task.instruction
    assert info == '{"current_app": "微信"}'


def test_later_messages_carry_only_the_screen_info():
    episode = make_episode(random.Random(7), "train", kind="send")
    messages = agent_messages(episode.steps[2].task, random.Random(0), episode.history(2))
    assert [role for role, _ in messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert messages[2][1] == episode.steps[0].task.reply
    head, info = messages[-1][1].split("\n\n")
    assert head == "** Screen Info **"
    assert json.loads(info) == {"current_app": episode.steps[2].task.app}


def test_the_system_prompt_names_every_kind_of_reply_part():
    system = agent_messages(text_task(random.Random(8), "train", language="en"), random.Random(1))[0][1]
    for part in ("<think>", "<answer>", 'do(action="', "0,0", "999,999"):
        assert part in system


def test_the_corpus_repeats_and_holds_every_coordinate():
    first, second = (list(corpus(random.Random(9), 40)) for _ in range(2))
    assert first == second
    assert {str(number) for number in range(1000)} <= set(first)

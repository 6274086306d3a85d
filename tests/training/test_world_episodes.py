import json
import random

import pytest

from autoglm_training.world.corpus import corpus
from autoglm_training.world.elements import SPLITS, Split
from autoglm_training.world.episodes import EPISODE_KINDS, Episode, make_episode
from autoglm_training.world.instructions import text_task
from autoglm_training.world.labels import LANGUAGES, Language
from autoglm_training.world.simulator import Simulator
from autoglm_training.world.tasks import BACK, swipe
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


def element_point(simulator: Simulator, label: str) -> str:
    element = simulator.screen.find(label)
    assert element is not None
    x, y = simulator.screen.point_999(element)
    return f'do(action="Tap", element=[{x},{y}])'


def episode_of(kind: str, *, first: str, language: Language = "en") -> Episode:
    """The first episode of the kind whose first screen is of that template."""
    rng = random.Random(11)
    while True:
        episode = make_episode(rng, "test", kind=kind, language=language)
        if episode.steps[0].scene.template == first:
            return episode


def test_home_leads_to_the_home_screen_and_the_app_s_icon_back():
    simulator = Simulator(episode_of("chat", first="chats"))
    chats = simulator.screen
    home = simulator.apply('do(action="Home")')
    assert (home.screen.template, home.correct) == ("home", False)
    assert simulator.expected.app == home.screen.app
    back = simulator.apply(element_point(simulator, chats.app))
    assert (back.screen, back.correct) == (chats, True)
    assert simulator.mistakes == 1


def test_back_closes_an_app_that_was_launched_by_mistake():
    simulator = Simulator(episode_of("scroll", first="settings"))
    settings = simulator.screen
    launched = simulator.apply('do(action="Launch", app="Taobao")')
    assert (launched.screen.template, launched.screen.app, launched.correct) == ("shop", "Taobao", False)
    back = simulator.apply(BACK)
    assert (back.screen, back.correct) == (settings, True)


def test_back_leaves_a_page_that_a_wrong_tap_opened():
    episode = episode_of("chat", first="chats")
    simulator = Simulator(episode)
    chats = simulator.screen
    wrong = next(e for e in chats.elements if e.kind == "row" and e.label not in episode.steps[0].task.think)
    opened = simulator.apply(element_point(simulator, wrong.label))
    assert (opened.screen.template, opened.screen.app, opened.correct) == ("thread", chats.app, False)
    assert simulator.apply(BACK).screen == chats
    assert simulator.apply(episode.steps[0].task.action).correct


def test_a_tap_that_would_be_right_elsewhere_is_wrong_on_another_screen():
    episode = episode_of("chat", first="chats")
    simulator = Simulator(episode)
    simulator.apply('do(action="Launch", app="Taobao")')
    assert not simulator.apply(episode.steps[0].task.action).correct


def test_a_list_scrolls_twice_and_back_again():
    episode = episode_of("scroll", first="settings")
    simulator = Simulator(episode)
    pages = [simulator.screen]
    for _ in range(3):
        pages.append(simulator.apply(swipe("up")).screen)
    assert len({page.scene.seed for page in pages}) == 4
    assert [simulator.apply(swipe("down")).screen for _ in range(3)] == pages[2::-1]
    again = simulator.apply(swipe("up"))
    assert again.correct
    assert again.screen == pages[1]


def test_back_from_a_reached_screen_keeps_what_was_done_there():
    episode = episode_of("toggle", first="home")
    assert [step.scene.template for step in episode.steps] == ["home", "settings", "settings"]
    simulator = Simulator(episode)
    simulator.apply(episode.steps[0].task.action)
    toggled = simulator.apply(episode.steps[1].task.action).screen
    assert simulator.apply(BACK).screen.template == "home"
    again = simulator.apply(episode.steps[0].task.action)
    assert again.correct
    assert again.screen == toggled


def test_the_end_may_be_said_from_another_screen():
    episode = episode_of("chat", first="chats")
    simulator = Simulator(episode)
    simulator.apply(episode.steps[0].task.action)
    simulator.apply('do(action="Home")')
    assert simulator.apply(episode.steps[1].task.action).success


def test_wandering_about_ends_the_episode():
    simulator = Simulator(make_episode(random.Random(13), "test", kind="toggle"))
    outcomes = []
    while not outcomes or not outcomes[-1].finished:
        outcomes.append(simulator.apply(('do(action="Launch", app="Taobao")', BACK)[len(outcomes) % 2]))
    assert len(outcomes) <= 8
    assert not outcomes[-1].success


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

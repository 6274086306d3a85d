import random
import re

import pytest

from autoglm_training.world.elements import SPLITS, Split
from autoglm_training.world.instructions import TEXT_FAMILIES, Task, parse_action, screen_tasks, text_task
from autoglm_training.world.labels import LANGUAGES, Language
from autoglm_training.world.phrases import families, phrase, wordings
from autoglm_training.world.phrases_combined import combined
from autoglm_training.world.positions import positions
from autoglm_training.world.screens import TEMPLATES, make_screen

DIRECT = ("launch", "back", "home", "type", "swipe_up", "swipe_down", "swipe_left", "swipe_right", "wait")


def _tasks(count: int, split: Split = "train") -> list[Task]:
    rng = random.Random(12)
    found = [text_task(rng, split) for _ in range(count)]
    for _ in range(count // 4):
        found += screen_tasks(rng, make_screen(rng, split), split, 6)
    return found


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("family", families())
def test_every_split_has_wordings_of_its_own(family: str, language: Language):
    train, validation, test = (set(wordings(family, language, split)) for split in SPLITS)
    assert all((train, validation, test))
    assert len(train | validation | test) == len(train) + len(validation) + len(test)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("family", DIRECT)
def test_a_direct_command_has_forty_phrasings(family: str, language: Language):
    rng = random.Random(0)
    phrasings = {phrase(rng, family, language, "train", {"x": "QQ", "n": "3"}).lower() for _ in range(600)}
    assert len(phrasings) >= 40


def bare(sentence: str) -> str:
    return re.sub("[~.!?,。！？， ]", "", sentence).lower()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_polite_frames_never_make_a_wording_of_another_split(family: str, language: Language):
    rng, slots = random.Random(6), {"x": "{x}", "n": "{n}"}
    judges: tuple[Split, ...] = ("validation", "test")
    held = {bare(core) for split in judges for name in TEXT_FAMILIES for core in wordings(name, language, split)}
    said = {bare(phrase(rng, family, language, "train", slots)) for _ in range(400)}
    assert not said & held


def test_parts_are_put_together_in_every_way():
    sentences = combined("wait_minutes", "en")
    assert "wait for at least {n} minutes" in sentences
    assert "stay for {n} minutes" in sentences
    assert not any(mark in sentence for sentence in sentences for mark in "<>|")


def test_same_seed_says_the_same():
    assert text_task(random.Random(3), "test") == text_task(random.Random(3), "test")


@pytest.mark.parametrize("split", SPLITS)
def test_actions_parse(split: Split):
    for task in _tasks(400, split):
        call = parse_action(task.action)
        assert call["call"] == ("finish" if task.action.startswith("finish") else "do")


@pytest.mark.parametrize("family", TEXT_FAMILIES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_no_brace_is_left_in_a_sentence(family: str, language: Language):
    rng = random.Random(5)
    for split in SPLITS:
        for _ in range(20):
            task = text_task(rng, split, family=family, language=language)
            assert "{" not in task.instruction + task.think + task.action
            assert task.instruction.strip() == task.instruction != ""


def test_thoughts_are_short():
    for task in _tasks(300):
        if task.language == "en":
            assert len(task.think.split()) <= 12
        else:
            assert len(task.think) <= 40


def test_typed_text_stands_in_the_instruction():
    rng = random.Random(6)
    for _ in range(300):
        task = text_task(rng, "train", family="type")
        assert str(parse_action(task.action)["text"]) in task.instruction


def test_the_app_in_front_is_not_launched():
    rng = random.Random(7)
    for _ in range(600):
        assert parse_action(text_task(rng, "train", family="launch", app="WeChat").action)["app"] != "WeChat"


@pytest.mark.parametrize("template", TEMPLATES)
def test_taps_aim_at_the_middle_of_their_target(template: str):
    rng = random.Random(8)
    for _ in range(20):
        screen = make_screen(rng, "train", template=template)
        for task in screen_tasks(rng, screen, "train", 6):
            if task.target_box is None:
                continue
            x, y = parse_action(task.action)["element"]  # type: ignore[misc]
            x0, y0, x1, y1 = task.target_box
            assert abs(x - (x0 + x1) / 2) <= 1.5
            assert abs(y - (y0 + y1) / 2) <= 1.5
            assert screen.at_999(x, y) is not None


def test_the_cheapest_product_is_the_cheapest():
    rng = random.Random(9)
    checked = 0
    for _ in range(40):
        screen = make_screen(rng, "train", template="shop", language="en")
        for task in screen_tasks(rng, screen, "train", 8):
            if task.think.startswith("The cheapest is"):
                least = min((e for e in screen.elements if e.price is not None), key=lambda e: e.price or 0.0)
                assert task.think == f"The cheapest is {least.label}."
                checked += 1
    assert checked


def test_bars_are_counted_from_left_to_right():
    screen = make_screen(random.Random(10), "train", template="chart", language="en")
    bars = [e.label for name, e in positions(screen) if re.fullmatch(r"the \w+ bar", name) and "last" not in name]
    assert bars == ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"][: len(bars)]


def test_a_switch_already_on_ends_the_task():
    rng = random.Random(11)
    found = 0
    for _ in range(80):
        screen = make_screen(rng, "train", template="settings", language="en")
        for task in screen_tasks(rng, screen, "train", 6):
            if task.family == "switch_done":
                element = next(e for e in screen.elements if e.label in task.action)
                assert task.action == f'finish(message="{element.label} is {"on" if element.on else "off"}.")'
                found += 1
    assert found


def test_practice_holds_more_of_what_must_be_counted_or_compared():
    rng = random.Random(14)
    compared = {False: 0, True: 0}
    for _ in range(60):
        screen = make_screen(rng, "train")
        for practice in compared:
            tasks = screen_tasks(rng, screen, "train", 6, practice=practice)
            compared[practice] += sum(task.family in ("tap_position", "tap_relation", "chart") for task in tasks)
    assert compared[True] > 1.3 * compared[False]


def test_asking_for_more_tasks_than_a_screen_has_still_fills_the_list():
    rng = random.Random(13)
    screen = make_screen(rng, "train", template="dialog")
    assert len(screen_tasks(rng, screen, "train", 60)) == 60


@pytest.mark.parametrize("text", ["tap", "print(1)", 'do("Tap")', "do(action=", 'do(action=len("a"))'])
def test_what_is_no_action_is_refused(text: str):
    with pytest.raises(ValueError, match=r"not an? |unknown|malformed"):
        parse_action(text)

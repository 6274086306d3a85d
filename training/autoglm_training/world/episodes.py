"""Tasks of two to six steps, and a simulator that lets a model play them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from autoglm_training.world import tasks
from autoglm_training.world.copy_text import simple_text
from autoglm_training.world.elements import PixelBox, Scene, Split
from autoglm_training.world.labels import CONTACTS, PRODUCTS, TOGGLES, names
from autoglm_training.world.language import LANGUAGES, Language, is_chinese
from autoglm_training.world.phrases import phrase
from autoglm_training.world.running_text import MESSAGES
from autoglm_training.world.sayings import answer, thought
from autoglm_training.world.screens import TEMPLATE_APPS, app_name, build_screen, make_scene
from autoglm_training.world.tasks import Task
from autoglm_training.world.wire import Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One turn: what is on the screen and what is expected."""

    scene: Scene
    task: Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """An instruction and its steps; the last one finishes."""

    kind: str
    instruction: str
    language: Language
    steps: tuple[Step, ...]

    def history(self, index: int) -> tuple[Turn, ...]:
        """The turns before step `index`, as `wire.agent_messages` takes them."""
        return tuple((step.task.app, step.task.reply) for step in self.steps[:index])


class _Story:
    """Writes the steps of one episode."""

    def __init__(self, rng: random.Random, split: Split, language: Language) -> None:
        self.rng = rng
        self.split: Split = split
        self.language: Language = language
        self.instruction = ""
        self.steps: list[Step] = []

    def scene(self, template: str, app: str | None = None, **changes: object) -> Scene:
        scene = make_scene(self.rng, self.split, template=template, language=self.language, app=app)
        if self.steps:
            size = self.steps[0].scene
            scene = replace(scene, width_px=size.width_px, height_px=size.height_px, dark=size.dark)
        else:
            scene = replace(scene, dark=self.rng.random() < 0.35)
        return replace(scene, **changes)  # type: ignore[arg-type]

    def say(self, family: str, **slots: str) -> None:
        self.instruction = phrase(
            self.rng, family, self.language, self.split, slots, verbatim=frozenset({"t"} & set(slots))
        )

    def add(
        self,
        scene: Scene,
        think: str,
        action: str,
        target_box: PixelBox | None = None,
        family: str = "episode",
        named: tuple[tuple[str, PixelBox], ...] = (),
    ) -> None:
        task = Task(
            family=family,
            language=self.language,
            instruction=self.instruction,
            think=think,
            action=action,
            target_box=target_box,
            named=named,
            speakable="“" not in self.instruction and '"' not in self.instruction,
            app=scene.app,
        )
        self.steps.append(Step(scene=scene, task=task))

    def tap(self, scene: Scene, label: str, saying: str = "tap", shown: str | None = None) -> None:
        screen = build_screen(scene)
        target = screen.find(label)
        assert target is not None, f"{label!r} is not on the {scene.template} screen"
        think = thought(saying, self.language, x=shown or label)
        named = ((shown or label, screen.box_999(target.box_px)),)
        action, box = tasks.tap(screen.point_999(target)), screen.box_999(target.tap_box_px)
        self.add(scene, think, action, box, named=named)

    def finish(self, scene: Scene, message: str, think: str | None = None) -> None:
        self.add(scene, think or thought("done", self.language), tasks.finish(message))

    def launch(self, english: str) -> str:
        """Launches from the home screen or another app; returns the display name."""
        name = app_name(english, self.language)
        start = self.scene("home") if self.rng.random() < 0.7 else self.scene("dialog")
        while start.app == name:
            start = self.scene("dialog")
        self.add(start, thought("launch", self.language, x=name), tasks.launch(name))
        return name


def _toggle(story: _Story) -> None:
    rng = story.rng
    tongue = story.language
    label = rng.choice(names(TOGGLES, tongue))
    state = rng.choice(("on", "off"))
    home_after = rng.random() < 0.35
    from_home = rng.random() < 0.6 and not home_after
    family = f"open_and_{state}" if from_home else f"{state}_then_home" if home_after else f"switch_{state}"
    story.say(family, x=label)
    if from_home:
        story.launch("Settings")
    before = story.scene("settings", must_show=(label,), states=((label, state == "off"),))
    after = replace(before, states=((label, state == "on"),))
    story.tap(before, label, f"switch_{state}")
    message = answer(f"is_{state}", tongue, x=label)
    think = thought(f"is_{state}", tongue, x=label)
    if home_after:
        story.add(after, thought("home", tongue), tasks.HOME)
        story.finish(story.scene("home"), message)
    else:
        story.finish(after, message, think)


_SHOWABLE = tuple((template, app) for template, apps in TEMPLATE_APPS.items() if apps and template != "home"
                  for app in apps if template not in ("thread", "keyboard"))  # fmt: skip


def _open_app(story: _Story) -> None:
    template, english = story.rng.choice(_SHOWABLE)
    name = app_name(english, story.language)
    if story.rng.random() < 0.3:
        story.say("home_then_open", x=name)
        front = story.scene("dialog")
        while front.app == name:
            front = story.scene("dialog")
        story.add(front, thought("home", story.language), tasks.HOME)
        start = story.scene("home")
        story.add(start, thought("launch", story.language, x=name), tasks.launch(name))
    else:
        story.say("launch", x=name)
        story.launch(english)
    opened = thought("opened", story.language, x=name)
    story.finish(story.scene(template, english), answer("opened", story.language, x=name), opened)


def _direct(story: _Story) -> None:
    rng = story.rng
    tongue = story.language
    kind = rng.choice(("back", "home", "swipe_up", "swipe_down", "swipe_left", "swipe_right", "wait_default"))
    story.say(kind)
    template = rng.choice(("settings", "chats", "shop", "results", "player"))
    before = story.scene(template)
    actions = {"back": tasks.BACK, "home": tasks.HOME, "wait_default": tasks.wait(2)}
    action = actions[kind] if kind in actions else tasks.swipe(kind[len("swipe_") :])
    story.add(before, thought(kind, tongue), action)
    after = story.scene("home") if kind in ("back", "home") else story.scene(template)
    after = after if kind in ("back", "home") else replace(after, app=before.app)
    story.finish(after if kind != "wait_default" else before, answer("done", tongue))


def _chat(story: _Story) -> None:
    name = story.rng.choice(names(CONTACTS, story.language))
    story.say("chat_row", x=name)
    chats = story.scene("chats", must_show=(name,))
    story.tap(chats, name)
    story.finish(replace(story.scene("thread"), app=chats.app, must_show=(name,)), answer("done", story.language))


def _send(story: _Story) -> None:
    rng = story.rng
    tongue = story.language
    text = rng.choice([m for m in MESSAGES[tongue] if "'" not in m]) if rng.random() < 0.5 else simple_text(rng, tongue)
    if is_chinese(text) != (tongue == "zh"):
        text = simple_text(rng, tongue)
    name = rng.choice(names(CONTACTS, tongue))
    from_list = rng.random() < 0.35
    story.say("send_to" if from_list else "send_here", t=text, x=name)
    app = None
    if from_list:
        chats = story.scene("chats", must_show=(name,))
        app = chats.app
        story.tap(chats, name)
    thread = story.scene("thread", must_show=(name,))
    thread = replace(thread, app=app or thread.app)
    field = next(e for e in build_screen(thread).elements if e.kind == "field")
    story.tap(thread, field.label, "field")
    story.add(replace(thread, focused=True), thought("type", tongue), tasks.type_text(text))
    ready = replace(thread, focused=True, typed=text)
    send = "发送图标" if tongue == "zh" else "send icon"
    story.tap(ready, "send", "icon", send)
    story.finish(replace(thread, must_show=(name, text)), answer("done", tongue))


def _search(story: _Story) -> None:
    rng = story.rng
    tongue = story.language
    english = rng.choice(TEMPLATE_APPS["shop"] or ())
    app = app_name(english, tongue)
    product = rng.choice(names(PRODUCTS, tongue))
    from_home = rng.random() < 0.3
    story.say("app_search" if from_home else "search", t=product, x=app)
    if from_home:
        story.launch(english)
    shop = story.scene("shop", english)
    while not (fields := [e for e in build_screen(shop).elements if e.kind == "field"]) or build_screen(shop).find(
        product
    ):
        shop = story.scene("shop", english)
    story.tap(shop, fields[0].label, "field")
    button = "搜索" if tongue == "zh" else "Search"
    keyboard = replace(story.scene("keyboard", must_show=(button,), focused=True), app=app)
    while build_screen(keyboard).find(product):
        keyboard = replace(keyboard, seed=keyboard.seed + 3)
    story.add(keyboard, thought("type", tongue), tasks.type_text(product))
    story.tap(replace(keyboard, typed=product), button, "submit")
    results = replace(story.scene("results", must_show=(product,), typed=product), app=app)
    story.finish(results, answer("done", tongue))


def _scroll(story: _Story) -> None:
    rng = story.rng
    tongue = story.language
    label = rng.choice(names(TOGGLES, tongue))
    state = rng.choice(("on", "off"))
    story.say(f"switch_{state}", x=label)
    first = story.scene("settings")
    while build_screen(first).find(label):
        first = story.scene("settings")
    story.add(first, thought("scroll_find", tongue, x=label), tasks.swipe("up"))
    second = replace(first, seed=first.seed + 3, must_show=(label,), states=((label, state == "off"),))
    story.tap(second, label, f"switch_{state}")
    after = replace(second, states=((label, state == "on"),))
    story.finish(after, answer(f"is_{state}", tongue, x=label), thought(f"is_{state}", tongue, x=label))


def _cheapest(story: _Story) -> None:
    english = story.rng.choice(TEMPLATE_APPS["shop"] or ())
    name = app_name(english, story.language)
    story.say("app_cheapest", x=name)
    story.launch(english)
    shop = story.scene("shop", english)
    priced = [e for e in build_screen(shop).elements if e.price is not None]
    best = min(priced, key=lambda e: e.price or 0.0)
    message = answer("cheapest", story.language, x=best.label, v=best.value or "")
    think = thought("cheapest", story.language, x=best.label)
    story.add(shop, think, tasks.finish(message), family="episode_ask")


_STORIES: dict[str, tuple[Callable[[_Story], None], float]] = {
    "toggle": (_toggle, 2.0), "open_app": (_open_app, 1.6), "direct": (_direct, 1.4), "chat": (_chat, 1.0),
    "send": (_send, 1.4), "search": (_search, 1.0), "scroll": (_scroll, 1.0), "cheapest": (_cheapest, 0.8),
}  # fmt: skip
EPISODE_KINDS: tuple[str, ...] = tuple(_STORIES)


def make_episode(
    rng: random.Random, split: Split, *, kind: str | None = None, language: Language | None = None
) -> Episode:
    """A random episode.

    Raises:
        ValueError: the kind is unknown.
    """
    chosen = kind or rng.choices(EPISODE_KINDS, [weight for _, weight in _STORIES.values()])[0]
    if chosen not in _STORIES:
        raise ValueError(f"kind must be one of {EPISODE_KINDS}, not {chosen!r}")
    story = _Story(rng, split, language or rng.choice(LANGUAGES))
    _STORIES[chosen][0](story)
    return Episode(kind=chosen, instruction=story.instruction, language=story.language, steps=tuple(story.steps))

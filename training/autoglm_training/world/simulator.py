"""Plays an episode: a model's actions move the phone from screen to screen."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from autoglm_training.world.elements import SPLITS, Element, Scene, Screen
from autoglm_training.world.episodes import Episode
from autoglm_training.world.labels import APPS
from autoglm_training.world.screens import TEMPLATE_APPS, build_screen, make_scene
from autoglm_training.world.tasks import Action, Task, parse_action
from autoglm_training.world.wire import Turn

MAX_MISTAKES = 3
_LISTS = ("settings", "chats", "shop", "results")
"""Templates that scroll."""
_OTHER_PAGES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an action did: whether it was right, whether the episode is over, and whether it succeeded.

    correct: it is what the episode expects here, or it undoes a wrong step
    """

    screen: Screen
    correct: bool
    finished: bool
    success: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Detour:
    """A screen off the episode's way. scrolled: of the page before it, which a swipe down brings back."""

    screen: Screen
    scrolled: bool = False


class Simulator:
    """Plays an episode: right actions lead on, wrong ones are mistakes, of which a few are forgiven.

    Wrong ones move the phone, too, where a phone would: Home, Back, Launch and a tap on an app's icon always, a swipe
    on a list, a tap on a page's or a chat's row. From there Back, a swipe down or the app's own icon lead back to where
    the episode goes on, with what was done so far kept. All else that is wrong leaves the screen as it is, a tap on
    another switch included.
    """

    def __init__(self, episode: Episode, *, max_mistakes: int = MAX_MISTAKES) -> None:
        self.episode = episode
        self.mistakes = 0
        self._max_mistakes = max_mistakes
        self._index = 0  # the furthest step reached
        self._at = 0  # the step whose screen lies below the detours: Back may lead to an earlier one
        self._detours: list[_Detour] = []
        self._finished = False
        self._replies: list[Turn] = []
        self._rng = random.Random(episode.steps[0].scene.seed)

    @property
    def screen(self) -> Screen:
        """What the phone shows now."""
        return self._detours[-1].screen if self._detours else build_screen(self._scene)

    @property
    def expected(self) -> Task:
        """The task that the episode wants next, with the app that is in front now."""
        return replace(self.episode.steps[self._at].task, app=self.screen.app)

    def history(self) -> tuple[Turn, ...]:
        """The replies given so far, as recorded by `record`."""
        return tuple(self._replies)

    def record(self, reply: str) -> None:
        """Keeps the model's own reply for the next turn's history; call it before `apply`."""
        self._replies.append((self.screen.app, reply))

    def apply(self, action: str) -> Outcome:
        """Performs one action.

        Raises:
            ValueError: the episode is over.
        """
        if self._finished:
            raise ValueError("the episode is over")
        last = len(self.episode.steps) - 1
        ends = action.startswith("finish")
        # What was to be done is done: the end may be said from any screen.
        success = self._index == last and ends and matches(action, self.episode.steps[last].task, self.screen)
        expected = success or self._is_expected(action)
        if expected and not success:
            self._go_on()
        undoes = not expected and self._move(action)
        if not expected and not undoes:
            self.mistakes += 1
        self._finished = ends or self.mistakes > self._max_mistakes
        return Outcome(
            screen=self.screen,
            correct=expected or undoes,
            finished=self._finished,
            success=success,
        )

    @property
    def _scene(self) -> Scene:
        return self.episode.steps[self._at].scene

    def _is_expected(self, action: str) -> bool:
        """Off the way only what does not depend on the screen counts: an app's launch, and Home."""
        task, screen = self.episode.steps[self._at].task, self.screen
        if not matches(action, task, screen):
            return False
        return not self._detours or parse_action(task.action).get("action") in ("Launch", "Home")

    def _go_on(self) -> None:
        self._detours.clear()
        if self._at == self._index:
            self._index += 1
        self._at += 1
        # Going over an earlier step once more: what was done on that screen is still so.
        while self._at < self._index and _place(self.episode.steps[self._at + 1].scene) == _place(self._scene):
            self._at += 1

    def _move(self, action: str) -> bool:
        """What an unexpected action does to the phone; True where it brings the episode's own screen nearer."""
        try:
            got = parse_action(action)
        except ValueError:
            return False
        name = got.get("action")
        if name == "Home":
            return self._home()
        if name == "Back":
            return self._back()
        if name == "Launch":
            return self._launch(str(got.get("app")))
        if name == "Swipe":
            return self._scroll(_direction(got))
        if name == "Tap" and (element := _tapped(got, self.screen)) is not None:
            return self._open(element)
        return False

    def _home(self) -> bool:
        was_away = bool(self._detours)
        self._detours.clear()
        if self._scene.template == "home":
            return was_away
        self._detours.append(self._other("home", must_show=(self._scene.app,)))
        return False

    def _back(self) -> bool:
        while self._detours and self._detours[-1].scrolled:
            self._detours.pop()
        if self._detours:
            if self._detours[-1].screen.template == "home":
                return False
            self._detours.pop()
            return True
        if self._scene.template == "home":
            return False
        earlier = [at for at in range(self._at) if _place(self.episode.steps[at].scene) != _place(self._scene)]
        if earlier:
            self._at = earlier[-1]
        else:
            self._home()
        return False

    def _launch(self, app: str) -> bool:
        if _same_app(app, self._scene.app):
            was_away = bool(self._detours)
            self._detours.clear()
            return was_away
        english = next((en for en, zh in APPS if _same_app(app, en) or _same_app(app, zh)), None)
        if english is not None:
            known = [t for t, apps in TEMPLATE_APPS.items() if apps and english in apps and t != "thread"]
            self._detours.append(self._other(known[0] if known else "dialog", app=english))
        return False

    def _scroll(self, direction: str | None) -> bool:
        if self.screen.template not in _LISTS:
            return False
        if direction == "up":
            self._detours.append(self._further())
        elif direction == "down" and self._detours:
            if self._detours[-1].scrolled:
                self._detours.pop()
                return True
        elif direction == "down":
            here = self._scene
            above = [at for at in range(self._at) if self.episode.steps[at].scene.seed != here.seed]
            if above and _place(self.episode.steps[above[-1]].scene) == _place(here):
                self._at = above[-1]
        return False

    def _open(self, element: Element) -> bool:
        screen = self.screen
        if screen.template == "home" and element.kind == "icon":
            return self._launch(element.label)
        if screen.template == "chats" and element.kind == "row":
            self._detours.append(self._page("thread", element.label))
        elif screen.template == "settings" and element.kind == "row":
            self._detours.append(self._page("settings", element.label))
        return False

    def _further(self) -> _Detour:
        """The list, scrolled by a screen. What is to be tapped is further up; a field may stay in view."""
        screen, task = self.screen, self.episode.steps[self._at].task
        wanted = {text for text, _ in task.named}
        for _ in range(_OTHER_PAGES):
            scene = replace(screen.scene, seed=screen.scene.seed + len(SPLITS), must_show=(), states=())
            screen = build_screen(scene)
            if not wanted & {element.label for element in screen.elements}:
                break
        return _Detour(screen=screen, scrolled=True)

    def _page(self, template: str, title: str) -> _Detour:
        """What a row of the app in front opens."""
        page = self._other(template, must_show=(title,))
        return _Detour(screen=build_screen(replace(page.screen.scene, app=self.screen.app)))

    def _other(self, template: str, *, app: str | None = None, must_show: tuple[str, ...] = ()) -> _Detour:
        here = self._scene
        scene = make_scene(
            self._rng, here.split, template=template, language=here.language, app=app, must_show=must_show
        )
        size = replace(scene, width_px=here.width_px, height_px=here.height_px, dark=here.dark)
        return _Detour(screen=build_screen(size))


def _place(scene: Scene) -> tuple[str, str]:
    return scene.template, scene.app


def matches(action: str, expected: Task, screen: Screen) -> bool:
    """Whether an action does what is expected: a tap inside the target, a swipe the same way, the same text or app."""
    try:
        got, want = parse_action(action), parse_action(expected.action)
    except ValueError:
        return False
    if got["call"] != want["call"]:
        return False
    if want["call"] == "finish":
        # A question's answer counts word for word; that something is done may be said freely.
        return got.get("message") == want["message"] if expected.family.endswith("ask") else True
    name = want["action"]
    if name == "Launch" and got.get("action") == "Tap":
        element = _tapped(got, screen)
        return element is not None and _same_app(element.label, str(want["app"]))
    if got.get("action") != name:
        return False
    if name in ("Tap", "Long Press", "Double Tap"):
        return _hits(got, expected)
    if name == "Swipe":
        return _direction(got) == _direction(want)
    if name == "Launch":
        return _same_app(str(got.get("app")), str(want["app"]))
    return all(got.get(key) == value for key, value in want.items())


def _point(action: Action, key: str) -> tuple[float, float] | None:
    value = action.get(key)
    if isinstance(value, list) and len(value) == 2 and all(isinstance(side, (int, float)) for side in value):
        return float(value[0]), float(value[1])
    return None


def _tapped(action: Action, screen: Screen) -> Element | None:
    point = _point(action, "element")
    return None if point is None else screen.at_999(int(point[0]), int(point[1]))


def _hits(action: Action, expected: Task) -> bool:
    point = _point(action, "element")
    if point is None or expected.target_box is None:
        return False
    x0, y0, x1, y1 = expected.target_box
    return x0 <= point[0] <= x1 and y0 <= point[1] <= y1


def _direction(action: Action) -> str | None:
    start, end = _point(action, "start"), _point(action, "end")
    if start is None or end is None:
        return None
    dx, dy = end[0] - start[0], end[1] - start[1]
    if abs(dx) > abs(dy):
        return "right" if dx > 0 else "left"
    return "down" if dy > 0 else "up"


def _same_app(first: str, second: str) -> bool:
    if first.strip().lower() == second.strip().lower():
        return True
    return any({first, second} == set(pair) for pair in APPS)

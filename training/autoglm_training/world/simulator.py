"""Plays an episode: a model's actions move the phone from screen to screen."""

from __future__ import annotations

from dataclasses import dataclass

from autoglm_training.world.elements import Element, Screen
from autoglm_training.world.episodes import Episode
from autoglm_training.world.labels import APPS
from autoglm_training.world.screens import build_screen
from autoglm_training.world.tasks import Action, Task, parse_action
from autoglm_training.world.wire import Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an action did: whether it was right, whether the episode is over, and whether it succeeded."""

    screen: Screen
    correct: bool
    finished: bool
    success: bool


class Simulator:
    """Plays an episode: right actions lead on, wrong ones leave the screen as it is and count as mistakes."""

    def __init__(self, episode: Episode, *, max_mistakes: int = 3) -> None:
        self.episode = episode
        self.mistakes = 0
        self._max_mistakes = max_mistakes
        self._index = 0
        self._finished = False
        self._replies: list[Turn] = []
        self._screen = build_screen(episode.steps[0].scene)

    @property
    def screen(self) -> Screen:
        """What the phone shows now."""
        return self._screen

    @property
    def expected(self) -> Task:
        """The expected task of this turn."""
        return self.episode.steps[self._index].task

    def history(self) -> tuple[Turn, ...]:
        """The replies given so far, as recorded by `record`."""
        return tuple(self._replies)

    def record(self, reply: str) -> None:
        """Keeps the model's own reply for the next turn's history; call it before `apply`."""
        self._replies.append((self._screen.app, reply))

    def apply(self, action: str) -> Outcome:
        """Performs one action.

        Raises:
            ValueError: the episode is over.
        """
        if self._finished:
            raise ValueError("the episode is over")
        correct = matches(action, self.expected, self._screen)
        last = self._index == len(self.episode.steps) - 1
        ends = action.startswith("finish")
        if correct and not last:
            self._index += 1
            self._screen = build_screen(self.episode.steps[self._index].scene)
        if not correct:
            self.mistakes += 1
        self._finished = ends or self.mistakes > self._max_mistakes
        return Outcome(screen=self._screen, correct=correct, finished=self._finished, success=correct and last and ends)


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

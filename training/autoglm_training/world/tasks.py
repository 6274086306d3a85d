"""An instruction with its expected reply, and the action grammar of AutoGLM."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from autoglm_training.world.elements import PixelBox
from autoglm_training.world.language import Language

Action = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One user sentence and what the model should reply.

    instruction: the plain sentence; think: one short sentence; action: one call, without tags
    target_box: (x0, y0, x1, y1) in 0..999 that a tap should hit, None for other actions
    named: what `think` names of the screen, in order: its text there and the element's whole box in 0..999
    speakable: whether the sentence makes sense when spoken
    app: the app in front, as the agent reports it in `current_app`
    """

    family: str
    language: Language
    instruction: str
    think: str
    action: str
    target_box: PixelBox | None = None
    named: tuple[tuple[str, PixelBox], ...] = ()
    speakable: bool = True
    app: str = "System Home"

    @property
    def reply(self) -> str:
        """The whole assistant message."""
        return f"<think>{self.think}</think><answer>{self.action}</answer>"


def tap(point: tuple[int, int], verb: str = "Tap") -> str:
    """`verb` is Tap, Long Press or Double Tap; the point is in 0..999."""
    return f'do(action="{verb}", element=[{point[0]},{point[1]}])'


def swipe(direction: str) -> str:
    """A swipe of the finger; "notifications" pulls down from the top edge."""
    start, end = {
        "up": ((500, 700), (500, 300)),
        "down": ((500, 300), (500, 700)),
        "left": ((800, 500), (200, 500)),
        "right": ((200, 500), (800, 500)),
        "notifications": ((500, 5), (500, 600)),
    }[direction]
    return f'do(action="Swipe", start=[{start[0]},{start[1]}], end=[{end[0]},{end[1]}])'


def type_text(text: str) -> str:
    """Raises ValueError for text that would need escapes, which agents do not undo."""
    if any(character in text for character in '"\\\n\r'):
        raise ValueError(f"text must not hold quotes, backslashes or line breaks: {text!r}")
    return f'do(action="Type", text="{text}")'


def launch(app: str) -> str:
    return f'do(action="Launch", app="{app}")'


def wait(seconds: int) -> str:
    return f'do(action="Wait", duration="{seconds} seconds")'


def take_over(message: str) -> str:
    return f'do(action="Take_over", message="{message}")'


def finish(message: str) -> str:
    """Raises ValueError for a message that would need escapes."""
    if any(character in message for character in '"\\\n\r'):
        raise ValueError(f"message must not hold quotes, backslashes or line breaks: {message!r}")
    return f'finish(message="{message}")'


BACK = 'do(action="Back")'
HOME = 'do(action="Home")'


def parse_action(text: str) -> Action:
    """The call's keywords, with "call" naming the function.

    Raises:
        ValueError: not exactly one `do(...)` or `finish(...)` with literal keywords.
    """
    try:
        call = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"not an action: {text!r}") from error
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
        raise ValueError(f"not a call with keywords: {text!r}")
    if call.func.id not in ("do", "finish"):
        raise ValueError(f"unknown call {call.func.id!r}")
    values: Action = {"call": call.func.id}
    for keyword in call.keywords:
        if keyword.arg is None:
            raise ValueError(f"not a keyword: {text!r}")
        values[keyword.arg] = ast.literal_eval(keyword.value)
    return values

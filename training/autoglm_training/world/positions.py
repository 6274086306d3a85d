"""Names of places: "the second switch", "the third app in the first row", and what lies next to what."""

from __future__ import annotations

import random
from itertools import pairwise

from autoglm_training.world.elements import Element, Screen
from autoglm_training.world.language import Language
from autoglm_training.world.phrases import ORDINALS

# Element group to (English noun, Chinese noun with its measure word left out).
_NOUNS: dict[str, tuple[str, str]] = {
    "products": ("product", "商品"), "results": ("result", "结果"), "apps": ("app", "应用"), "dock": ("app", "应用"),
    "buttons": ("button", "按钮"), "tabs": ("tab", "标签"), "top tabs": ("tab", "标签"), "rows": ("row", "选项"),
    "bars": ("bar", "柱子"),
}  # fmt: skip
_CHAT_NOUN = ("chat", "聊天")
SWITCH_NOUN = ("switch", "开关")
GRID_GROUPS = ("apps", "products")
_SAME_ROW_PX = 6
_BESIDE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "below": (("below", "under", "right below", "just under", "after"), ("下面", "下边", "下方")),
    "above": (("above", "over", "right above", "just above", "before"), ("上面", "上边", "上方")),
    "right_of": (("right of", "to the right of"), ("右边", "右面", "右侧")),
    "left_of": (("left of", "to the left of"), ("左边", "左面", "左侧")),
}


def noun(element: Element, language: Language) -> str:
    """What to call the element."""
    english, chinese = SWITCH_NOUN if element.kind == "switch" else _NOUNS.get(element.group, ("item", "项目"))
    return chinese if language == "zh" else english


def _ordinal(index: int, count: int, language: Language) -> list[str]:
    """The English words or the Chinese prefix for the place; the last place has two names."""
    found: list[str] = []
    if index < len(ORDINALS[language]):
        found.append(ORDINALS[language][index] if language == "en" else f"第{ORDINALS[language][index]}个")
    if index == count - 1 and count > 2:
        found.append("last" if language == "en" else "最后一个")
    return found


def rows_of(elements: list[Element]) -> list[list[Element]]:
    """The elements in reading order, grouped by line."""
    lines: list[list[Element]] = []
    for element in sorted(elements, key=lambda e: (e.box_px[1], e.box_px[0])):
        if lines and abs(lines[-1][0].box_px[1] - element.box_px[1]) <= _SAME_ROW_PX:
            lines[-1].append(element)
        else:
            lines.append([element])
    return [sorted(line, key=lambda e: e.box_px[0]) for line in lines]


def counted(screen: Screen) -> list[tuple[tuple[str, str], list[Element]]]:
    """(noun pair, elements in reading order) of everything that can be counted."""
    groups: dict[str, list[Element]] = {}
    for element in screen.elements:
        if element.group in _NOUNS:
            groups.setdefault(element.group, []).append(element)
    found: list[tuple[tuple[str, str], list[Element]]] = []
    for group, members in groups.items():
        pair = _NOUNS[group]
        if group == "rows" and screen.template == "chats":
            pair = _CHAT_NOUN
        ordered = [element for line in rows_of(members) for element in line]
        if group == "bars":
            ordered = sorted(members, key=lambda e: e.box_px[0])
        found.append((pair, ordered))
    switches = [element for element in screen.elements if element.kind == "switch"]
    if switches:
        found.append((SWITCH_NOUN, [element for line in rows_of(switches) for element in line]))
    return found


def positions(screen: Screen) -> list[tuple[str, Element]]:
    """(name, element) of every element with a place that can be said, such as "the second switch"."""
    language = screen.language
    families = counted(screen)
    # "The second tab" or "the first app" must mean one thing only.
    twice = [pair for pair, _ in families]
    found: list[tuple[str, Element]] = []
    for pair, members in families:
        group = members[0].group
        if len(members) < 2 or (twice.count(pair) > 1 and group not in ("apps", "dock")):
            continue
        if group == "dock":
            continue
        lines = rows_of(members)
        if group in GRID_GROUPS and len(lines[0]) > 1:
            found.extend(_grid_positions(pair, lines, language))
            continue
        for index, element in enumerate(members):
            for place in _ordinal(index, len(members), language):
                found.append((f"the {place} {pair[0]}" if language == "en" else f"{place}{pair[1]}", element))
    return found


def _grid_positions(pair: tuple[str, str], lines: list[list[Element]], language: Language) -> list[tuple[str, Element]]:
    found: list[tuple[str, Element]] = []
    ordinals = ORDINALS[language]
    for row, line in enumerate(lines[: len(ordinals)]):
        for column, element in enumerate(line):
            for place in _ordinal(column, len(line), language):
                if language == "en":
                    found.append((f"the {place} {pair[0]} in the {ordinals[row]} row", element))
                else:
                    found.append((f"第{ordinals[row]}行{place}{pair[1]}", element))
    return found


def place_beside(rng: random.Random, side: str, label: str, kind: str, language: Language) -> str:
    """A name for what lies on that side of `label`, such as "the switch below Alarm"."""
    english, chinese = _BESIDE[side]
    if language == "zh":
        return f"{label}{rng.choice(chinese)}{rng.choice((f'的{kind}', '那个', '的那个'))}"
    return f"the {rng.choice((kind, kind, 'one'))} {rng.choice(english)} {label}"


def neighbours(screen: Screen) -> list[tuple[str, Element, Element]]:
    """(side, anchor, target): the target is directly on that side of the anchor, in the same group."""
    groups: dict[str, list[Element]] = {}
    for element in screen.elements:
        if element.group in ("rows", "products", "results", "apps"):
            groups.setdefault(element.group, []).append(element)
    found: list[tuple[str, Element, Element]] = []
    for members in groups.values():
        lines = rows_of(members)
        for upper, lower in pairwise(lines):
            for above, below in zip(upper, lower, strict=False):
                found += [("below", above, below), ("above", below, above)]
        for line in lines:
            for left, right in pairwise(line):
                found += [("right_of", left, right), ("left_of", right, left)]
    return found

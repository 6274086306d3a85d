"""What preflight found, and how it is shown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TextIO

_WIDTH = 110


class Level(Enum):
    OK = "ok"
    WARNING = "warn"
    FAILURE = "FAIL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report. `cure` says what to do, where there is something to do."""

    level: Level
    subject: str
    text: str
    cure: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"level": self.level.value.lower(), "subject": self.subject, "text": self.text, "cure": self.cure}


def ok(subject: str, text: str) -> Finding:
    return Finding(level=Level.OK, subject=subject, text=text)


def warning(subject: str, text: str, cure: str = "") -> Finding:
    return Finding(level=Level.WARNING, subject=subject, text=text, cure=cure)


def failure(subject: str, text: str, cure: str = "") -> Finding:
    return Finding(level=Level.FAILURE, subject=subject, text=text, cure=cure)


def count(findings: Iterable[Finding], level: Level) -> int:
    return sum(finding.level is level for finding in findings)


def print_findings(findings: Sequence[Finding], out: TextIO) -> None:
    """A table: level, subject, what was found, and under it what to do."""
    width = max((len(finding.subject) for finding in findings), default=0)
    for finding in findings:
        head = f"  {finding.level.value:<4}  {finding.subject:<{width}}  "
        indent = " " * len(head)
        out.write(f"{_wrapped(head, finding.text, indent)}\n")
        if finding.cure:
            out.write(f"{_wrapped(indent + '-> ', finding.cure, indent + '   ')}\n")


def verdict(findings: Sequence[Finding]) -> str:
    failures, warnings = count(findings, Level.FAILURE), count(findings, Level.WARNING)
    if failures:
        return f"{_counted(failures, 'failure')}, {_counted(warnings, 'warning')}: this release would not come up."
    return f"nothing stands in the way; {_counted(warnings, 'warning')}." if warnings else "nothing stands in the way."


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _wrapped(head: str, text: str, indent: str) -> str:
    lines: list[str] = []
    for number, paragraph in enumerate(text.splitlines() or [""]):
        start = head if number == 0 else indent
        wrapper = textwrap.TextWrapper(
            width=_WIDTH,
            initial_indent=start,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        lines.append(wrapper.fill(paragraph))
    return "\n".join(lines)

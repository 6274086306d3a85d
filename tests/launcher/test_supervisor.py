"""The order of things, with small programs as children and signals sent to this very process."""

import io
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from autoglm_backend.launcher import supervisor
from autoglm_backend.launcher.child import ChildSpec
from autoglm_backend.launcher.errors import ChildDied
from autoglm_backend.launcher.report import Report
from autoglm_backend.launcher.supervisor import Stage, Supervisor

_SAYS_WHEN_IT_ENDS = """
import signal, sys
name = sys.argv[1]
def end(*_):
    print(f"[DYNAMIC GRAPH] {name} ends")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print(f"[DYNAMIC GRAPH] {name} runs")
signal.pause()
"""
_NEVER_ENDS = """
import signal
signal.signal(signal.SIGTERM, lambda *_: print("[DYNAMIC GRAPH] no"))
print("[DYNAMIC GRAPH] stubborn runs")
while True:
    signal.pause()
"""


class _Output(io.StringIO):
    """Sends this process `signals[text]` when a line with that text is printed."""

    def __init__(self, signals: dict[str, signal.Signals] | None = None) -> None:
        super().__init__()
        self._signals = dict(signals or {})

    def write(self, text: str) -> int:
        for trigger in [trigger for trigger in self._signals if trigger in text]:
            os.kill(os.getpid(), self._signals.pop(trigger))
        return super().write(text)

    @property
    def streamed(self) -> list[str]:
        prefix = "[DYNAMIC GRAPH] "
        return [line.removeprefix(prefix) for line in self.getvalue().splitlines() if line.startswith(prefix)]


def _stage(tmp_path: Path, output: _Output, name: str, code: str) -> Stage:
    async def has_said_so() -> bool:
        return f"{name} runs" in output.streamed

    spec = ChildSpec(
        name=name,
        command=(sys.executable, "-uc", code, name),
        environment=os.environ,
        log_path=tmp_path / f"{name}.log",
    )
    return Stage(spec=spec, is_ready=has_said_so, starting=f"Starting {name}")


async def test_the_last_started_ends_first(tmp_path: Path):
    output = _Output()
    stages = tuple(_stage(tmp_path, output, name, _SAYS_WHEN_IT_ENDS) for name in ("triton", "gateway"))

    status = await Supervisor(Report(out=output), verbose=False).run(
        stages, lambda: os.kill(os.getpid(), signal.SIGINT)
    )

    assert status == 0
    assert output.streamed == ["triton runs", "gateway runs", "gateway ends", "triton ends"]


async def test_a_second_signal_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(supervisor, "REPEAT_S", 0.0)
    output = _Output({"no": signal.SIGTERM})
    stage = _stage(tmp_path, output, "stubborn", _NEVER_ENDS)

    status = await Supervisor(Report(out=output), verbose=False).run(
        (stage,), lambda: os.kill(os.getpid(), signal.SIGTERM)
    )

    assert status == 128 + signal.SIGTERM


async def test_one_wish_delivered_twice_kills_nothing(tmp_path: Path):
    output = _Output({"Stopping": signal.SIGTERM})
    stage = _stage(tmp_path, output, "triton", _SAYS_WHEN_IT_ENDS)

    status = await Supervisor(Report(out=output), verbose=False).run(
        (stage,), lambda: os.kill(os.getpid(), signal.SIGTERM)
    )

    assert status == 0
    assert output.streamed[-1] == "triton ends"


async def test_the_next_stage_is_not_started_after_a_death(tmp_path: Path):
    output = _Output()
    dying = _stage(tmp_path, output, "triton", "import sys; print('why'); sys.exit(0)")
    never = _stage(tmp_path, output, "gateway", _SAYS_WHEN_IT_ENDS)

    with pytest.raises(ChildDied, match="triton ended with status 0") as death:
        await Supervisor(Report(out=output), verbose=False).run((dying, never), lambda: None)

    assert death.value.last_lines == ("why",)
    assert "Starting gateway" not in output.getvalue()


async def test_verbose_shows_every_line_with_its_child(tmp_path: Path):
    output = _Output({"triton | quiet": signal.SIGTERM})
    stage = _stage(tmp_path, output, "triton", "import signal; print('quiet'); signal.pause()")

    await Supervisor(Report(out=output), verbose=True).run((stage,), lambda: None)

    assert "triton | quiet" in output.getvalue().splitlines()


async def test_a_child_with_work_is_told_to_stop_only_when_it_is_idle(tmp_path: Path):
    output = _Output()
    asked: list[bool] = []

    async def is_idle() -> bool:
        asked.append("triton ends" in output.streamed)
        return len(asked) == 3

    stage = replace(_stage(tmp_path, output, "triton", _SAYS_WHEN_IT_ENDS), is_idle=is_idle)
    status = await Supervisor(Report(out=output), verbose=False).run(
        (stage,), lambda: os.kill(os.getpid(), signal.SIGTERM)
    )

    assert status == 0
    assert asked == [False, False, False]
    assert output.streamed[-1] == "triton ends"


async def test_a_child_that_is_never_idle_is_stopped_after_the_drain(tmp_path: Path):
    output = _Output()

    async def is_idle() -> bool:
        return False

    stage = replace(_stage(tmp_path, output, "triton", _SAYS_WHEN_IT_ENDS), is_idle=is_idle)
    status = await Supervisor(Report(out=output), verbose=False, drain_s=0.2).run(
        (stage,), lambda: os.kill(os.getpid(), signal.SIGTERM)
    )

    assert status == 0
    assert output.streamed[-1] == "triton ends"

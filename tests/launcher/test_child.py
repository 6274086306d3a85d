import asyncio
import os
import select
import sys
from pathlib import Path

from autoglm_backend.launcher.child import TAIL_LINES, Child, ChildSpec


async def _start(tmp_path: Path, code: str, lines: list[str] | None = None) -> Child:
    spec = ChildSpec(
        name="child",
        command=(sys.executable, "-u", "-c", code),
        environment=os.environ,
        log_path=tmp_path / "child.log",
    )
    return await Child.start(spec, (lines if lines is not None else []).append)


async def test_the_log_holds_everything_and_the_tail_the_last_lines(tmp_path: Path):
    seen: list[str] = []

    child = await _start(tmp_path, "for n in range(100): print(n)", seen)

    assert await child.exited == 0
    assert seen == [str(n) for n in range(100)]
    assert child.last_lines == tuple(seen[-TAIL_LINES:])
    assert (tmp_path / "child.log").read_text().split() == seen


async def test_standard_error_and_an_unfinished_last_line_count(tmp_path: Path):
    child = await _start(tmp_path, "import os; os.write(2, b'no newline'); os._exit(3)")

    assert await child.exited == 3
    assert child.last_lines == ("no newline",)


async def test_a_line_without_end_is_cut(tmp_path: Path):
    child = await _start(tmp_path, "print('x' * 1_000_000)")

    await child.exited

    assert sum(map(len, child.last_lines)) == 1_000_000
    assert len(child.last_lines) > 1


async def test_stop_waits_for_a_clean_end(tmp_path: Path):
    ready = asyncio.Event()
    code = "import signal, sys; signal.signal(15, lambda *_: sys.exit(7)); print('ready'); signal.pause()"
    spec = ChildSpec(
        name="child", command=(sys.executable, "-uc", code), environment=os.environ, log_path=tmp_path / "log"
    )
    child = await Child.start(spec, lambda _: ready.set())
    await ready.wait()

    await child.stop(grace_s=30)

    assert child.exited.result() == 7


async def test_stop_kills_what_does_not_end_in_time(tmp_path: Path):
    ready = asyncio.Event()
    code = "import signal; signal.signal(15, signal.SIG_IGN); print('ready'); signal.pause()"
    spec = ChildSpec(
        name="child", command=(sys.executable, "-uc", code), environment=os.environ, log_path=tmp_path / "log"
    )
    child = await Child.start(spec, lambda _: ready.set())
    await ready.wait()

    await child.stop(grace_s=0.05)

    assert child.exited.result() == -9


async def test_a_grandchild_ends_with_the_child(tmp_path: Path):
    grandchild: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    code = "import signal, subprocess; print(subprocess.Popen(['sleep', '600']).pid); signal.pause()"
    spec = ChildSpec(
        name="child", command=(sys.executable, "-uc", code), environment=os.environ, log_path=tmp_path / "log"
    )
    child = await Child.start(spec, lambda line: grandchild.set_result(os.pidfd_open(int(line))))
    descriptor = await grandchild

    child.terminate()

    assert await child.exited == -15  # would not come while the grandchild held the pipe open
    assert select.select([descriptor], [], [], 10)[0], "a pidfd turns readable when its process has ended"
    os.close(descriptor)

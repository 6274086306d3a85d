"""What the kernel tells of this process's CPUs."""

import os
from pathlib import Path

import pytest

from autoglm_backend.cpus import CpuMeter, CpuUse, usable_cpus

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def write_proc(proc: Path, *, idle_s: float, waited_s: dict[int, float]) -> None:
    proc.mkdir(exist_ok=True)
    (proc / "stat").write_text(f"cpu  500 0 300 {int(idle_s * TICKS_PER_S)} 0 0 0 0 0 0\ncpu0 1 2 3 4 5 6 7 0 0 0\n")
    for task, seconds in waited_s.items():
        folder = proc / "self" / "task" / str(task)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "schedstat").write_text(f"123 {int(seconds * 1e9)} 7\n")


@pytest.mark.parametrize(("limit", "cpus"), [("100000 100000\n", 1), ("50000 100000\n", 1), ("max 100000\n", None)])
def test_a_containers_quota_bounds_the_cpus(tmp_path: Path, limit: str, cpus: int | None):
    (tmp_path / "cpu.max").write_text(limit)

    assert usable_cpus(tmp_path) == (cpus or len(os.sched_getaffinity(0)))


def test_waiting_and_idle_time_are_shares_of_the_time_since_the_last_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    now_s = 100.0
    monkeypatch.setattr("autoglm_backend.cpus.time.monotonic", lambda: now_s)
    write_proc(tmp_path, idle_s=50, waited_s={1: 4.0, 2: 1.0})
    meter = CpuMeter(tmp_path)
    now_s = 102.0
    write_proc(tmp_path, idle_s=53, waited_s={1: 4.5, 2: 1.0, 3: 0.5})

    assert meter.read() == CpuUse(waiting=0.5, idle=1.5)


def test_a_thread_that_ended_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    now_s = 1.0
    monkeypatch.setattr("autoglm_backend.cpus.time.monotonic", lambda: now_s)
    write_proc(tmp_path, idle_s=0, waited_s={1: 1.0, 2: 9.0})
    meter = CpuMeter(tmp_path)
    now_s = 2.0
    (tmp_path / "self" / "task" / "2" / "schedstat").unlink()

    assert meter.read() == CpuUse(waiting=0.0, idle=0.0)


def test_a_kernel_that_does_not_tell_gives_nothing(tmp_path: Path):
    assert CpuMeter(tmp_path / "missing").read() is None


def test_this_machines_counters_can_be_read():
    use = CpuMeter().read()

    assert use is not None
    assert use.waiting >= 0
    assert use.idle >= 0

from __future__ import annotations

from typing import Any

from autoglm_client.profile_table import NUM_ROWS, Operator, operators, table


def event(name: str, ts: float, dur: float, cat: str = "cpu_op", tid: int = 1) -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": tid, "ts": ts, "dur": dur}


def test_own_time_is_without_that_of_the_calls_inside():
    events = [event("step", 0, 100, "user_annotation"), event("mm", 10, 30), event("copy", 15, 5), event("mm", 50, 30)]

    assert operators({"traceEvents": events}) == [
        Operator(name="mm", where="cpu", calls=2, self_us=55, total_us=60),
        Operator(name="step", where="cpu", calls=1, self_us=40, total_us=100),
        Operator(name="copy", where="cpu", calls=1, self_us=5, total_us=5),
    ]


def test_threads_and_devices_do_not_nest_in_each_other():
    events = [event("mm", 0, 10), event("mm", 5, 10, tid=2), event("gemm", 2, 4, "kernel", tid=7)]

    assert [(row.name, row.where, row.self_us) for row in operators({"traceEvents": events})] == [
        ("mm", "cpu", 20),
        ("gemm", "gpu", 4),
    ]


def test_what_is_no_operator_is_left_out():
    events = [{"ph": "M", "name": "process_name"}, {"ph": "f", "cat": "ac2g"}, event("run", 0, 5, "cuda_runtime")]

    assert operators({"traceEvents": events}) == []


def test_the_table_says_the_share_of_time_and_cuts_long_names_and_long_lists():
    events = [event("a" * 99, 0, 500_000), *(event(f"op{i}", 600_000 + i, 1) for i in range(40))]
    lines = table({"autoglm": {"steps": 2, "seconds": 1.0}, "traceEvents": events}).splitlines()

    assert lines[0] == "2 steps in 1 s"
    assert "…" in lines[3]
    assert lines[3].endswith("50.0%")
    assert len(lines) == 3 + NUM_ROWS

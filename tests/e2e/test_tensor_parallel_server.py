"""Two ranks through the whole server, and what users and operators see when it stops or one rank dies."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.e2e.stack import Stack, running_stack
from tests.launcher.process_tree import descendants, runs

pytestmark = pytest.mark.triton

STREAMS = 3


def test_a_stop_lets_streams_finish_and_leaves_no_process(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with two_ranks(tiny_checkpoint, tmp_path) as stack, streams(stack) as (answers, have_begun):
        have_begun.wait()
        family = descendants(stack.process.pid)
        stack.process.send_signal(signal.SIGTERM)
        ends = [answer.result() for answer in answers]

        assert stack.process.wait() == 0
    assert rank_1(stack) in family
    assert [lines[-1] for lines in ends] == ["data: [DONE]"] * STREAMS
    assert not any('"error"' in line for lines in ends for line in lines)
    assert not [pid for pid in family if runs(pid)]


def test_a_dead_rank_ends_every_stream_in_one_error_and_the_server_with_one_line(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with two_ranks(tiny_checkpoint, tmp_path) as stack, streams(stack) as (answers, have_begun):
        have_begun.wait()
        family = descendants(stack.process.pid)
        os.kill(rank_1(stack), signal.SIGKILL)
        ends = [answer.result() for answer in answers]

        assert stack.process.wait() == 2
    reason = r"tensor-parallel rank 1 \(process \d+\) was killed by signal 9"
    errors = [[line for line in lines if '"error"' in line] for lines in ends]
    assert [len(of_stream) for of_stream in errors] == [1] * STREAMS
    assert all(re.search(reason, line) for of_stream in errors for line in of_stream)
    (told,) = [line for line in stack.lines if line.startswith("[ERROR]")]
    assert re.fullmatch(rf"\[ERROR\] {reason}", told)
    assert not [pid for pid in family if runs(pid)]


@contextmanager
def two_ranks(checkpoint: Path, log_dir: Path) -> Iterator[Stack]:
    options = ["--tensor-parallel-size", "2", "--threads", "1", "--drain-s", "300"]  # slow where cores are few
    with running_stack(checkpoint, log_dir, options) as stack:
        yield stack


@contextmanager
def streams(stack: Stack) -> Iterator[tuple[list[Future[list[str]]], threading.Barrier]]:
    """Streams under way: the lines that each will have, and a barrier that opens when all have begun."""
    have_begun = threading.Barrier(STREAMS + 1, timeout=120)

    def read(number: int) -> list[str]:
        body = {
            "model": "autoglm-phone-9b",
            "messages": [{"role": "user", "content": f"Go back {number}"}],
            "temperature": 0,
            "max_tokens": 200,
            "ignore_eos": True,
            "stream": True,
        }
        with httpx.stream("POST", f"{stack.http}/v1/chat/completions", json=body, timeout=120) as response:
            assert response.status_code == 200
            lines = response.iter_lines()
            first = next(lines)
            have_begun.wait()
            return [first, *(line for line in lines if line)]

    with ThreadPoolExecutor(STREAMS) as pool:
        yield [pool.submit(read, number) for number in range(STREAMS)], have_begun


def rank_1(stack: Stack) -> int:
    """Its process, as the decoder's log names it."""
    found = [re.search(r"tensor-parallel rank 1 is process (\d+)", line) for line in stack.lines]
    return next(int(match[1]) for match in found if match)

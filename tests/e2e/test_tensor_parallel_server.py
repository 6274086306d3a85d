"""Two ranks through the whole server, and what users and operators see when one dies."""

from __future__ import annotations

import os
import re
import signal
import threading
from pathlib import Path

import httpx
import pytest
from tests.e2e.stack import Stack, running_stack

pytestmark = pytest.mark.triton


def test_a_dead_rank_ends_streams_in_an_error_and_the_server_with_one_line(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    body = {
        "model": "autoglm-phone-9b",
        "messages": [{"role": "user", "content": "Go back"}],
        "temperature": 0,
        "max_tokens": 200,
        "ignore_eos": True,
        "stream": True,
    }
    with running_stack(tiny_checkpoint, tmp_path, ["--tensor-parallel-size", "2", "--threads", "1"]) as stack:
        with httpx.stream("POST", f"{stack.http}/v1/chat/completions", json=body, timeout=120) as response:
            lines = response.iter_lines()
            assert response.status_code == 200
            assert next(lines).startswith("data: {")
            os.kill(rank_1(stack), signal.SIGKILL)
            rest = [line for line in lines if line]
        assert sum('"error"' in line for line in rest) == 1
        is_over = threading.Event()
        for _ in range(600):
            if any(line.startswith("[ERROR]") for line in stack.lines):
                break
            is_over.wait(0.1)
    errors = [line for line in stack.lines if line.startswith("[ERROR]")]
    assert len(errors) == 1
    assert re.fullmatch(r"\[ERROR\] tensor-parallel rank 1 \(process \d+\) was killed by signal 9", errors[0])


def rank_1(stack: Stack) -> int:
    """Its process, as the decoder's log names it."""
    found = [re.search(r"tensor-parallel rank 1 is process (\d+)", line) for line in stack.lines]
    return next(int(match[1]) for match in found if match)

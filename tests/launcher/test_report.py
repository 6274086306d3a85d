"""How loading looks: a bar on a terminal, now and then a line elsewhere, one line at the end on both."""

from __future__ import annotations

import io
import time

from autoglm_backend.launcher.report import Report
from autoglm_backend.status_lines import Loading


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def loading(tensors: int) -> Loading:
    """So many of eight tensors of a megabyte each."""
    return Loading(model="text_decoder", tensors=tensors, of_tensors=8, bytes=tensors * 10**6, of_bytes=8 * 10**6)


def test_a_terminal_shows_a_bar_that_grows_in_place() -> None:
    out = _Terminal()
    report = Report(out=out)

    report.loading(loading(2))
    report.loading(loading(4))

    assert "\n" not in out.getvalue()
    first, second = out.getvalue().split("\r")[1:]
    assert first.endswith("Loading text_decoder   [######..................]  25%  2/8 tensors, 2.0/8.0 MB")
    assert second.endswith("Loading text_decoder   [############............]  50%  4/8 tensors, 4.0/8.0 MB")


def test_the_last_tensor_replaces_the_bar_by_a_line() -> None:
    out = _Terminal()
    report = Report(out=out)

    report.loading(loading(4))
    report.loading(loading(8))

    before, line = out.getvalue().rsplit("\r\x1b[2K", 1)
    assert before
    assert line.startswith("[INFO] ")
    assert line.endswith("s  Loaded text_decoder: 8 tensors, 8.0 MB\n")


def test_a_pipe_gets_a_line_every_five_seconds() -> None:
    out = io.StringIO()
    report = Report(out=out, started_s=time.monotonic())

    report.loading(loading(1))
    report.loading(loading(2))
    report.started_s -= 6  # as if so much time had passed
    report.loading(loading(4))
    report.loading(loading(5))

    (line,) = out.getvalue().splitlines()
    assert line.endswith("Loading text_decoder: 50%, 4/8 tensors, 4.0/8.0 MB")

"""Becomes the command it is given, after binding it to its parent: `python bound.py PARENT_PID COMMAND...`.

A program of its own because code between fork and exec is not safe in a parent that has threads (gRPC's).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

if __name__ == "__main__":
    parent, *command = sys.argv[1:]
    # the kernel sends SIGTERM when the parent is gone, however it went; exec keeps the setting
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):  # it died before prctl
        sys.exit(1)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")

"""Lets a Triton Python model see the environment that the launcher runs in.

The stub runs Python isolated: PYTHONPATH and the virtual environment are ignored. The launcher puts this file beside
the Python backend, where the stub finds it, and names the folders in AUTOGLM_SITE_PACKAGES. A model.py starts with

    import autoglm_site

    autoglm_site.activate()
"""

import os
import site
import sys
import threading
import time
from typing import TextIO, cast

_PARENT_CHECK_S = 1.0


def activate() -> None:
    """Adds the launcher's package folders, editable installs included. Does nothing where the launcher set none."""
    for folder in os.environ.get("AUTOGLM_SITE_PACKAGES", "").split(os.pathsep):
        if folder and folder not in sys.path:
            site.addsitedir(folder)
    # into a pipe Python writes blocks, and log lines would come long after the event
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(cast(TextIO, stream), "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True)
    threading.Thread(target=_end_with, args=(os.getppid(),), name="parent-watch", daemon=True).start()


def _end_with(server: int) -> None:
    """Ends this process when tritonserver is gone: a stub waits for a killed server for ever, holding its memory."""
    while os.getppid() == server:
        time.sleep(_PARENT_CHECK_S)
    os._exit(1)

"""Lets a Triton Python model see the environment that the launcher runs in.

The stub runs Python isolated: PYTHONPATH and the virtual environment are ignored. The launcher puts this file beside
the Python backend, where the stub finds it, and names the folders in AUTOGLM_SITE_PACKAGES. A model.py starts with

    import autoglm_site

    autoglm_site.activate()
"""

import os
import site
import sys
from typing import TextIO, cast


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

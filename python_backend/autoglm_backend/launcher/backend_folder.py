"""The folder that tritonserver takes its backends from: the installation's, with our stub and site module in it."""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Mapping
from pathlib import Path

import autoglm_backend
import autoglm_protocol
from autoglm_backend.cpus import usable_cpus
from autoglm_backend.launcher.triton_binary import TritonInstallation

SITE_PACKAGES_VARIABLE = "AUTOGLM_SITE_PACKAGES"
PYTHON_VARIABLE = "AUTOGLM_PYTHON"
"""Where tensor-parallel ranks are started from: inside the stub sys.executable is not this interpreter."""
_SITE_MODULE = Path(__file__).with_name("autoglm_site.py")


def make_backend_folder(triton: TritonInstallation, folder: Path) -> None:
    """Fills `folder` with links to every backend of the installation."""
    python = folder / "python"
    python.mkdir(parents=True)
    for backend in triton.backends.iterdir():
        if backend.name != "python":
            (folder / backend.name).symlink_to(backend)
    for part in (triton.backends / "python").iterdir():
        if part.name != triton.python_stub.name:
            (python / part.name).symlink_to(part)
    (python / triton.python_stub.name).symlink_to(triton.python_stub)
    (python / _SITE_MODULE.name).symlink_to(_SITE_MODULE)


SPIN_COUNT = "10000"
"""Turns that an idle OpenMP thread waits awake: some ten microseconds, longer than from one product to the next. With
libgomp's own 300,000 a machine that has other work stands still: threads burn the time that the last one needs."""


def triton_environment(triton: TritonInstallation, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """`environment` with what tritonserver and the models inside it need."""
    libraries = [str(folder) for folder in triton.library_folders]
    libraries += filter(None, [environment.get("LD_LIBRARY_PATH")])
    changed = {
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
        SITE_PACKAGES_VARIABLE: os.pathsep.join(package_folders()),
        PYTHON_VARIABLE: sys.executable,
        "OMP_NUM_THREADS": environment.get("OMP_NUM_THREADS", str(usable_cpus())),
        "GOMP_SPINCOUNT": environment.get("GOMP_SPINCOUNT", SPIN_COUNT),
    }
    return {**environment, **changed}


def package_folders() -> tuple[str, ...]:
    """Where this process finds its packages: the environment's site-packages, then our own source folders."""
    sources = (str(Path(package.__path__[0]).parent) for package in (autoglm_protocol, autoglm_backend))
    return tuple(dict.fromkeys((*site.getsitepackages(), *sources)))

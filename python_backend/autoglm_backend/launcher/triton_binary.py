"""Which tritonserver to run: the NGC container's if it is there, otherwise the one in the nvidia-pytriton wheel."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

from autoglm_backend.launcher import libpython
from autoglm_backend.launcher.errors import LaunchError

NGC_ROOT = Path("/opt/tritonserver")


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonInstallation:
    """A tritonserver with the parts of its Python backend.

    `backends` holds one folder a backend; `python_stub` is the executable that runs models of this Python version;
    `library_folders` are what the dynamic linker must search.
    """

    binary: Path
    backends: Path
    python_stub: Path
    library_folders: tuple[Path, ...]


def find_triton(ngc_root: Path = NGC_ROOT) -> TritonInstallation:
    """The Triton to run. Raises LaunchError if there is none for this Python, or its shared library is missing."""
    library = libpython.find_libpython()
    if library is None:
        raise LaunchError(f"Triton's Python backend needs {libpython.library_name()}; run: {libpython.apt_line()}")
    return _from_ngc(ngc_root, library) or _from_wheel(library)


def _from_ngc(root: Path, library: Path) -> TritonInstallation | None:
    binary, backends = root / "bin" / "tritonserver", root / "backends"
    stub = backends / "python" / "triton_python_backend_stub"
    # the container brings one stub, built for its own Python
    if not binary.is_file() or not stub.is_file() or libpython.library_name().encode() not in stub.read_bytes():
        return None
    return TritonInstallation(
        binary=binary, backends=backends, python_stub=stub, library_folders=(root / "lib", library.parent)
    )


def _from_wheel(library: Path) -> TritonInstallation:
    # find_spec of a top-level package does not import it
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise LaunchError("No Triton here: neither /opt/tritonserver nor the nvidia-pytriton wheel; run: make setup")
    package = Path(spec.submodule_search_locations[0])
    root = package / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = root / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise LaunchError(f"The nvidia-pytriton wheel has no Python backend for Python {version}.")
    return TritonInstallation(
        binary=root / "bin" / "tritonserver",
        backends=root / "backends",
        python_stub=stub,
        library_folders=(package.parent / "nvidia_pytriton.libs", library.parent),
    )

"""Where the shared library of this Python lies: Triton's Python stub loads it, and Debian packs it separately."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path


def library_name() -> str:
    """The file name that the stub asks the dynamic linker for, such as libpython3.11.so.1.0."""
    return f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"


def find_libpython() -> Path | None:
    """The shared library of this Python, beside the interpreter or known to the dynamic linker; None if absent."""
    for folder in (sysconfig.get_config_var("LIBDIR"), Path(sys.base_prefix) / "lib"):
        if folder and (candidate := Path(folder) / library_name()).is_file():
            return candidate
    return _find_with_ldconfig()


def apt_line() -> str:
    """The command that installs the library on Debian and Ubuntu."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return f"sudo apt-get update && sudo apt-get install -y libpython{version}"


def _find_with_ldconfig() -> Path | None:
    for command in ("ldconfig", "/sbin/ldconfig"):
        try:
            listing = subprocess.run([command, "-p"], capture_output=True, text=True, check=False).stdout
        except FileNotFoundError:
            continue
        for line in listing.splitlines():
            name, arrow, path = line.strip().partition(" => ")
            if arrow and name.split(" ")[0] == library_name():
                return Path(path)
    return None


if __name__ == "__main__":
    found = find_libpython()
    if found is None:
        sys.exit(f"{library_name()} is not installed; run: {apt_line()}")
    print(found)

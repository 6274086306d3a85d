import os
from pathlib import Path

import pytest

from autoglm_backend.launcher import libpython
from autoglm_backend.launcher.backend_folder import SPIN_COUNT, make_backend_folder, triton_environment
from autoglm_backend.launcher.errors import LaunchError
from autoglm_backend.launcher.triton_binary import find_triton


def _make_ngc_root(root: Path, *, stub: bytes) -> Path:
    for folder in ("bin", "lib", "backends/python", "backends/tensorrt"):
        (root / folder).mkdir(parents=True)
    (root / "bin" / "tritonserver").touch()
    (root / "backends" / "python" / "triton_python_backend_stub").write_bytes(stub)
    (root / "backends" / "python" / "triton_python_backend_utils.py").touch()
    return root


def test_the_wheels_triton_is_found(tmp_path: Path):
    triton = find_triton(ngc_root=tmp_path)

    assert os.access(triton.binary, os.X_OK)
    assert os.access(triton.python_stub, os.X_OK)
    assert (triton.backends / "python" / "libtriton_python.so").is_file()
    assert any((folder / libpython.library_name()).is_file() for folder in triton.library_folders)


def test_the_containers_triton_comes_first(tmp_path: Path):
    root = _make_ngc_root(tmp_path, stub=b"..." + libpython.library_name().encode() + b"...")

    assert find_triton(ngc_root=root).binary == root / "bin" / "tritonserver"


def test_a_container_built_for_another_python_is_passed_over(tmp_path: Path):
    root = _make_ngc_root(tmp_path, stub=b"...libpython3.7.so.1.0...")

    assert find_triton(ngc_root=root).binary != root / "bin" / "tritonserver"


def test_a_missing_libpython_names_the_apt_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(libpython, "find_libpython", lambda: None)

    with pytest.raises(LaunchError, match=r"apt-get install -y libpython3\.\d+$"):
        find_triton(ngc_root=tmp_path)


def test_the_backend_folder_holds_every_backend_and_the_site_module(tmp_path: Path):
    root = _make_ngc_root(tmp_path / "triton", stub=libpython.library_name().encode())

    make_backend_folder(find_triton(ngc_root=root), tmp_path / "backends")

    python = tmp_path / "backends" / "python"
    assert {path.name for path in python.iterdir()} == {
        "autoglm_site.py",
        "triton_python_backend_stub",
        "triton_python_backend_utils.py",
    }
    assert (tmp_path / "backends" / "tensorrt").is_dir()


def test_the_callers_library_path_and_thread_count_are_kept(tmp_path: Path):
    triton = find_triton(ngc_root=tmp_path)

    environment = triton_environment(triton, {"LD_LIBRARY_PATH": "/mine", "OMP_NUM_THREADS": "3", "HOME": "/h"})

    assert environment["LD_LIBRARY_PATH"].endswith(":/mine")
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["GOMP_SPINCOUNT"] == SPIN_COUNT
    assert environment["HOME"] == "/h"

"""Files and folders are replaced whole or not at all: on a really full disk, and under a real SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from autoglm_training import files
from autoglm_training.files import replaced_folder, save_json, save_tensors

FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from autoglm_training.checkpoint import save_atomically
from autoglm_training.files import save_tensors, save_text
from autoglm_training.tokenizer import load_tokenizer, save_tokenizer_json
kind, path = sys.argv[1], Path(sys.argv[2])
tokenizer = load_tokenizer(Path("checkpoints/autoglm-phone-tiny/tokenizer.json"))
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
many = {"a": torch.zeros(1 << 18)}
try:
    {
        "tensors": lambda: save_tensors(many, path),
        "state": lambda: save_atomically(many, path),
        "text": lambda: save_text("x" * 1_000_000, path),
        "tokenizer": lambda: save_tokenizer_json(tokenizer, path),
    }[kind]()
except OSError as error:
    print(error)
"""


@pytest.mark.parametrize("kind", ["tensors", "state", "text", "tokenizer"])
def test_a_full_disk_keeps_the_last_good_file_and_names_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"the last good one")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, kind, str(path)], capture_output=True, text=True, timeout=120, check=True
    )
    assert f"{path} was not written and is as before: " in done.stdout
    assert path.read_bytes() == b"the last good one"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_kill_before_the_move_keeps_the_last_good_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "certificate.json"
    save_json({"delta": 0.02}, path)

    def killed(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        save_json({"delta": 0.5}, path)
    assert "0.02" in path.read_text(encoding="utf-8")


def test_tensors_may_be_read_by_everyone(tmp_path: Path) -> None:
    save_tensors({"a": torch.ones(1)}, tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").stat().st_mode & 0o777 == 0o644
    assert load_file(tmp_path / "x.safetensors")["a"].tolist() == [1]


def write_two(folder: Path, value: str) -> None:
    for name in ("a", "b"):
        (folder / name).write_text(value, encoding="utf-8")


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_a_folder_is_replaced_with_all_its_files(tmp_path: Path) -> None:
    for value in ("old", "new"):
        with replaced_folder(tmp_path / "checkpoint") as fresh:
            write_two(fresh, value)
    assert contents(tmp_path / "checkpoint") == {"a": "new", "b": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_file_system_that_cannot_swap_replaces_a_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.ctypes, "CDLL", lambda name, use_errno: object())
    for value in ("old", "new"):
        with replaced_folder(tmp_path / "checkpoint") as fresh:
            write_two(fresh, value)
    assert contents(tmp_path / "checkpoint") == {"a": "new", "b": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_an_error_while_filling_keeps_the_old_folder(tmp_path: Path) -> None:
    with replaced_folder(tmp_path / "checkpoint") as fresh:
        write_two(fresh, "old")

    def fail_half_way() -> None:
        with replaced_folder(tmp_path / "checkpoint") as fresh:
            (fresh / "a").write_text("new", encoding="utf-8")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        fail_half_way()
    assert contents(tmp_path / "checkpoint") == {"a": "old", "b": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


KILLED = """
import sys
from pathlib import Path
from autoglm_training.files import replaced_folder
with replaced_folder(Path(sys.argv[1])) as fresh:
    (fresh / "a").write_text("new", encoding="utf-8")
    print("half", flush=True)
    sys.stdin.read()
"""


def test_a_killed_replacement_leaves_the_old_folder_and_can_be_done_again(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    with replaced_folder(folder) as fresh:
        write_two(fresh, "old")
    command = [sys.executable, "-c", KILLED, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL
    assert contents(folder) == {"a": "old", "b": "old"}
    with replaced_folder(folder) as fresh:
        write_two(fresh, "new")
    assert contents(folder) == {"a": "new", "b": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]

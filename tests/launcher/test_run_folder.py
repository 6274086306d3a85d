import uuid
from pathlib import Path

from autoglm_backend.launcher.run_folder import PREFIX, SHARED_MEMORY, run_folder, sweep


def test_the_folder_and_its_shared_memory_are_gone_afterwards(tmp_path: Path):
    with run_folder(tmp_path) as folder:
        (folder / "models").mkdir()
        segment = SHARED_MEMORY / f"{folder.name}-segment"
        segment.touch()

    assert not folder.exists()
    assert not segment.exists()


def test_what_a_killed_run_left_is_swept(tmp_path: Path):
    left = tmp_path / f"{PREFIX}{uuid.uuid4().hex}"
    left.mkdir()
    (left / "lock").touch()
    segment = SHARED_MEMORY / f"{left.name}-segment"
    segment.touch()

    sweep(tmp_path)

    assert not left.exists()
    assert not segment.exists()


def test_a_running_neighbour_is_left_alone(tmp_path: Path):
    with run_folder(tmp_path) as neighbour:
        sweep(tmp_path)

        assert neighbour.is_dir()

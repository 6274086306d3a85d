"""Encoders give their memory back when idle and are there again for the next request."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny_checkpoint import write_checkpoint
from torch import nn

from autoglm_backend.encoders.residency import Loaded, Offloaded, Resident
from autoglm_backend.encoders.speech import SpeechService
from autoglm_backend.encoders.vision import VisionService

CPU = torch.device("cpu")
SOON_S = 0.02
MB = 1 << 20


def big() -> nn.Linear:
    return nn.Linear(4096, 4096, bias=False)


def test_idle_weights_are_dropped_and_the_memory_saved_is_measured() -> None:
    changes: queue.Queue[Offloaded | Loaded] = queue.Queue()
    resident = Resident(big, CPU, idle_s=SOON_S, observe=changes.put)

    loaded, offloaded = changes.get(timeout=30), changes.get(timeout=30)
    resident.close()

    assert isinstance(loaded, Loaded)
    assert (loaded.weights_bytes, loaded.is_reload) == (64 * MB, False)
    assert isinstance(offloaded, Offloaded)
    assert 50 * MB < offloaded.freed_bytes < 80 * MB


def test_the_next_use_loads_them_again() -> None:
    changes: queue.Queue[Offloaded | Loaded] = queue.Queue()
    resident = Resident(lambda: nn.Linear(2, 2), CPU, idle_s=SOON_S, observe=changes.put)
    changes.get(timeout=30), changes.get(timeout=30)

    with resident.use() as module:
        assert module.weight.shape == (2, 2)
    reloaded = changes.get(timeout=30)
    resident.close()

    assert isinstance(reloaded, Loaded)
    assert reloaded.is_reload


def test_weights_in_use_stay() -> None:
    dropped = threading.Event()

    def observe(change: Offloaded | Loaded) -> None:
        if isinstance(change, Offloaded):
            dropped.set()

    resident = Resident(lambda: nn.Linear(2, 2), CPU, idle_s=0.2, observe=observe)
    with resident.use():
        assert not dropped.wait(0.5)
    assert dropped.wait(30)
    resident.close()


def test_requests_during_a_reload_wait_for_one_load() -> None:
    dropped, go = threading.Event(), threading.Event()
    loads: list[int] = []

    def load() -> nn.Linear:
        loads.append(1)
        if len(loads) > 1:
            assert go.wait(30)
        return nn.Linear(2, 2)

    def observe(change: Offloaded | Loaded) -> None:
        if isinstance(change, Offloaded):
            dropped.set()

    resident = Resident(load, CPU, idle_s=SOON_S, observe=observe)
    assert dropped.wait(30)

    def use() -> int:
        with resident.use() as module:
            return module.in_features

    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(use) for _ in range(8)]
        go.set()
        assert [future.result(30) for future in waiting] == [2] * 8
    resident.close()
    assert len(loads) == 2


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def test_a_picture_is_encoded_the_same_after_a_reload(checkpoint: Path) -> None:
    changes: queue.Queue[Offloaded | Loaded] = queue.Queue()
    patches_PK = np.random.default_rng(1).standard_normal((16, 1176), dtype=np.float32)
    grids = np.array([(4, 4)], dtype=np.int32)
    kept = VisionService.from_checkpoint(checkpoint, "cpu")
    offloading = VisionService.from_checkpoint(checkpoint, "cpu", idle_s=SOON_S, observe=changes.put)
    while not isinstance(changes.get(timeout=30), Offloaded):
        pass

    again = offloading.encode(patches_PK, grids)
    offloading.close()

    np.testing.assert_array_equal(again, kept.encode(patches_PK, grids))


def test_a_clip_is_heard_the_same_after_a_reload(checkpoint: Path) -> None:
    changes: queue.Queue[Offloaded | Loaded] = queue.Queue()
    mel_FC = np.random.default_rng(1).standard_normal((100, 80), dtype=np.float32)
    kept = SpeechService.from_checkpoint(checkpoint, "cpu")
    offloading = SpeechService.from_checkpoint(checkpoint, "cpu", idle_s=SOON_S, observe=changes.put)
    while not isinstance(changes.get(timeout=30), Offloaded):
        pass

    again = offloading.encode(mel_FC)
    offloading.close()

    np.testing.assert_array_equal(again, kept.encode(mel_FC))

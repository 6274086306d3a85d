from pathlib import Path

import pytest

from autoglm_backend.doorways.receipts import Receipts
from autoglm_backend.status_lines import RUN_FOLDER_VARIABLE
from autoglm_protocol.wire.decode import RECEIPT_SLOTS


def test_what_the_reader_takes_the_writer_sees(tmp_path: Path) -> None:
    environment = {RUN_FOLDER_VARIABLE: str(tmp_path)}
    reader, writer = Receipts.of_this_run(environment), Receipts.of_this_run(environment)
    assert reader is not None
    assert writer is not None
    first, second = reader.lend(), reader.lend()
    assert first is not None
    assert second is not None
    first.note()
    first.note()
    second.note()
    assert (writer.taken(first.slot), writer.taken(second.slot)) == (2, 1)


def test_a_counter_starts_at_0_for_its_next_stream(tmp_path: Path) -> None:
    receipts = Receipts(tmp_path / "receipts")
    receipt = receipts.lend()
    assert receipt is not None
    receipt.note()
    receipt.give_back()
    again = receipts.lend()
    assert again is not None
    assert again.slot == receipt.slot
    assert receipts.taken(again.slot) == 0


def test_more_streams_than_counters_do_without(tmp_path: Path) -> None:
    receipts = Receipts(tmp_path / "receipts")
    lent = [receipts.lend() for _ in range(RECEIPT_SLOTS)]
    assert len({receipt.slot for receipt in lent if receipt is not None}) == RECEIPT_SLOTS
    assert receipts.lend() is None


def test_outside_a_run_there_are_none() -> None:
    assert Receipts.of_this_run({}) is None


def test_nobody_else_may_read_the_counters(tmp_path: Path) -> None:
    Receipts(tmp_path / "receipts")
    assert (tmp_path / "receipts").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("slot", [0, RECEIPT_SLOTS - 1])
def test_every_slot_has_a_counter(tmp_path: Path, slot: int) -> None:
    assert Receipts(tmp_path / "receipts").taken(slot) == 0

"""Which tokens of a reply are about which place on the screen."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer

from autoglm_training.pointing import pointing
from autoglm_training.samples import Row, RowBuilder, collate

BUILDER = RowBuilder(Tokenizer.from_file("checkpoints/autoglm-phone-tiny/tokenizer.json"))
ALARM, CLOCK, KNOB = (0, 100, 999, 200), (0, 200, 999, 300), (800, 220, 900, 280)


def about(reply: str, box: tuple[int, int, int, int]) -> str:
    """The tokens that are about `box`, as one text."""
    row = Row()
    BUILDER.add_reply(row, reply, box=KNOB, named=(("Alarm", ALARM), ("Clock", CLOCK)))
    return BUILDER.tokenizer.decode([t for t, b in zip(row.ids, row.boxes, strict=True) if b == box])


@pytest.mark.parametrize(("box", "text"), [(ALARM, " Alarm is"), (CLOCK, " Clock.850250")], ids=["anchor", "target"])
def test_words_and_numbers_are_about_the_element_that_was_named_last(box: tuple[int, int, int, int], text: str) -> None:
    reply = '<think>Below Alarm is Clock.</think><answer>do(action="Tap", element=[850,250])</answer>'
    assert about(reply, box).replace(",", "") == text


def test_numbers_are_about_what_they_hit_where_nothing_was_named() -> None:
    reply = '<think>Tap it.</think><answer>do(action="Tap", element=[850,250])</answer>'
    assert about(reply, KNOB).replace(",", "") == "850250"


def test_what_the_thought_does_not_name_is_passed_over() -> None:
    reply = '<think>Tap it.</think><answer>finish(message="Clock")</answer>'
    assert about(reply, CLOCK) == ""


def test_the_writer_of_a_name_is_taught_to_look_at_its_element() -> None:
    row = Row()
    BUILDER.add_image(row, (10, 4))
    BUILDER.add_reply(row, "<think>Tap Alarm.</think>", named=(("Alarm", ALARM),))
    batch = collate([row])
    taught = pointing(batch, BUILDER.image)
    assert taught is not None
    named = np.nonzero(~np.isnan(batch.boxes_BT4[0, :, 0]))[0]
    assert taught.columns_N.tolist() == (named - 1).tolist()
    cells = np.nonzero(batch.ids_BT[0] == BUILDER.image)[0]
    assert np.nonzero(taught.inside_NT[0].numpy())[0].tolist() == cells[4:8].tolist()

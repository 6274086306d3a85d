from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_backend.doorways.event_writer import EventWriter, merge_deltas
from autoglm_protocol.events import Cancelled, ChoiceFinished, FinishReason, StreamEvent, TokenDelta


@dataclass(eq=False)
class Out:
    """An outlet that always is ready, or as `ready` says."""

    send: Callable[[StreamEvent], None]
    ready: Callable[[], bool] = lambda: True

    def is_ready(self) -> bool:
        return self.ready()

    def is_urgent(self, event: StreamEvent) -> bool:
        return isinstance(event, Cancelled)


def delta(token: int, index: int = 0) -> TokenDelta:
    return TokenDelta(text="", token_ids=(token,), index=index)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9))))
def test_merging_keeps_every_token_of_every_choice_in_order(tokens: list[tuple[int, int]]) -> None:
    merged = merge_deltas([*(delta(token, index) for index, token in tokens), Cancelled()])
    assert isinstance(merged[-1], Cancelled)
    for choice in range(3):
        ids = [i for e in merged if isinstance(e, TokenDelta) and e.index == choice for i in e.token_ids]
        assert ids == [token for index, token in tokens if index == choice]
    assert len(merged) == 1 + len({index for index, _ in tokens})


def test_a_choices_tokens_stay_before_its_end() -> None:
    end = ChoiceFinished(index=0, finish_reason=FinishReason.STOP)
    merged = merge_deltas([delta(1), delta(5, 1), delta(2), end, delta(6, 1)])
    assert merged == [
        TokenDelta(text="", token_ids=(1, 2)),
        TokenDelta(text="", token_ids=(5, 6), index=1),
        end,
    ]


def test_a_slow_receiver_gets_longer_messages_and_the_engine_never_waits() -> None:
    writer = EventWriter()
    received: list[StreamEvent] = []
    is_busy, go_on, is_over = threading.Event(), threading.Event(), threading.Event()

    def send(event: StreamEvent) -> None:
        received.append(event)
        is_busy.set()
        go_on.wait()
        if isinstance(event, Cancelled):
            is_over.set()

    out = Out(send)
    writer.put(out, delta(0))
    is_busy.wait()
    for token in range(1, 100):
        writer.put(out, delta(token))
    writer.put(out, Cancelled())
    go_on.set()
    is_over.wait()
    writer.stop()
    assert received == [delta(0), TokenDelta(text="", token_ids=tuple(range(1, 100))), Cancelled()]


@pytest.mark.filterwarnings("error")
def test_one_streams_broken_receiver_leaves_the_others_alone() -> None:
    writer = EventWriter()
    is_over = threading.Event()

    def broken(event: StreamEvent) -> None:
        raise RuntimeError("gone")

    writer.put(Out(broken), delta(1))
    writer.put(Out(lambda _: is_over.set()), Cancelled())
    assert is_over.wait(10)
    writer.stop()


def test_messages_are_held_to_the_rate() -> None:
    writer = EventWriter(max_messages_per_s=50.0)
    received: list[StreamEvent] = []
    is_over, first = threading.Event(), threading.Event()

    def send(event: StreamEvent) -> None:
        received.append(event)
        first.set()
        if isinstance(event, Cancelled):
            is_over.set()

    out = Out(send)
    writer.put(out, delta(0))
    first.wait()
    # all of these come within the 20 ms that the first message reserves
    for token in range(1, 50):
        writer.put(out, delta(token))
    writer.put(out, Cancelled())
    is_over.wait()
    writer.stop()
    assert len(received) <= 4


def test_the_next_message_waits_until_the_one_before_was_taken() -> None:
    writer = EventWriter(max_messages_per_s=1000.0)
    received: list[StreamEvent] = []
    has_first, was_asked, is_over = threading.Event(), threading.Event(), threading.Event()
    taken = 0

    def send(event: StreamEvent) -> None:
        received.append(event)
        has_first.set()
        if isinstance(event, Cancelled):
            is_over.set()

    def ready() -> bool:
        if len(received) == 1 and not taken:
            was_asked.set()
        return taken >= len(received)

    out = Out(send, ready)
    writer.put(out, delta(0))
    assert has_first.wait(10)
    writer.put(out, delta(1))
    writer.put(out, delta(2))
    assert was_asked.wait(10)
    assert len(received) == 1  # two more are due, and nobody took the first
    writer.put(out, Cancelled())
    taken = 1_000
    assert is_over.wait(10)
    writer.stop()
    ids = [token for event in received if isinstance(event, TokenDelta) for token in event.token_ids]
    assert ids == [0, 1, 2]


def test_one_stream_that_nobody_reads_holds_no_other_up_and_not_the_end() -> None:
    writer = EventWriter(max_messages_per_s=1000.0)
    stuck: list[StreamEvent] = []
    is_over = threading.Event()
    writer.put(Out(stuck.append, lambda: False), Cancelled())
    writer.put(Out(lambda _: is_over.set()), Cancelled())
    assert is_over.wait(10)
    assert not stuck
    writer.stop()
    assert stuck == [Cancelled()]


def test_a_few_streams_leave_the_decoder_its_cores_and_an_urgent_event_waits_for_nothing() -> None:
    writer = EventWriter()
    received: list[StreamEvent] = []
    first, is_over = threading.Event(), threading.Event()

    def send(event: StreamEvent) -> None:
        received.append(event)
        first.set()
        if isinstance(event, Cancelled):
            is_over.set()

    outs = [Out(send) for _ in range(3)]
    for out in outs:
        writer.put(out, delta(0))
    assert first.wait(10)
    for token in range(1, 50):
        for out in outs:
            writer.put(out, delta(token))
    writer.put(outs[0], Cancelled())
    assert is_over.wait(10)
    writer.stop()
    # Far fewer than 147: what came within a pause went together.
    assert len(received) <= 3 * 4 + 1
    assert sum(len(event.token_ids) for event in received if isinstance(event, TokenDelta)) == 150

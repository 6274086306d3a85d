from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from autoglm_client._sse import ServerSentEvent, SSEDecoder

LINE_ENDS = st.sampled_from(["\n", "\r", "\r\n"])
VALUES = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=12)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    lines = draw(
        st.lists(
            st.one_of(
                VALUES.map("data: {}".format),
                VALUES.map("data:{}".format),
                VALUES.map("event: {}".format),
                VALUES.map("id: {}".format),
                VALUES.map(": {}".format),
                VALUES,
                st.just(""),
                st.just("data"),
            ),
            max_size=20,
        )
    )
    return "".join(line + draw(LINE_ENDS) for line in lines).encode()


def cut(stream: bytes, positions: list[int]) -> list[bytes]:
    places = sorted({min(p, len(stream)) for p in positions} | {0, len(stream)})
    return [stream[start:end] for start, end in itertools.pairwise(places)]


def decode(chunks: list[bytes]) -> list[ServerSentEvent]:
    decoder = SSEDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def reference(stream: bytes) -> list[ServerSentEvent]:
    """The standard's algorithm over the whole stream at once, line by line, with its own words for everything."""
    text = stream.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    events, data, event_type, last_id = [], "", "", ""
    for line in text.split("\n")[:-1]:
        if line == "":
            if data:
                events.append(ServerSentEvent(data=data[:-1], event=event_type or "message", last_event_id=last_id))
            data, event_type = "", ""
        elif line.startswith(":"):
            continue
        else:
            name, value = line.split(":", 1) if ":" in line else (line, "")
            value = value[1:] if value.startswith(" ") else value
            if name == "data":
                data += value + "\n"
            elif name == "event":
                event_type = value
            elif name == "id":
                last_id = value
    return events


@given(streams(), st.lists(st.integers(0, 400), max_size=30))
def test_any_cut_of_any_stream_gives_the_events_of_the_standard(stream: bytes, positions: list[int]) -> None:
    assert decode(cut(stream, positions)) == reference(stream)


@given(streams())
def test_byte_by_byte_gives_the_same_events(stream: bytes) -> None:
    assert decode([bytes([byte]) for byte in stream]) == reference(stream)


def test_data_lines_of_one_event_are_joined_with_newlines() -> None:
    assert [e.data for e in decode([b"data: a\ndata:b\ndata\n\n"])] == ["a\nb\n"]


def test_a_carriage_return_at_the_end_of_a_chunk_completes_the_event_at_once() -> None:
    assert [e.data for e in decode([b"data: a\r\r"])] == ["a"]


def test_a_line_feed_after_a_chunk_that_ended_in_a_carriage_return_is_no_blank_line() -> None:
    assert decode([b"data: a\r", b"\ndata: b\n\n"]) == [ServerSentEvent(data="a\nb")]


def test_an_event_without_its_blank_line_never_comes() -> None:
    assert decode([b"data: a\n"]) == []


def test_a_byte_order_mark_is_skipped_once() -> None:
    assert [e.data for e in decode([b"\xef\xbb", b"\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n"])] == ["a"]


def test_an_id_with_a_null_is_ignored_and_one_without_stays() -> None:
    events = decode([b"id: 7\ndata: a\n\nid: x\0\ndata: b\n\n"])
    assert [e.last_event_id for e in events] == ["7", "7"]


def test_a_character_cut_in_two_arrives_whole() -> None:
    raw = "data: 蓝牙\n\n".encode()
    assert [e.data for e in decode([raw[:7], raw[7:]])] == ["蓝牙"]

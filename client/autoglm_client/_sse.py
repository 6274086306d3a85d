"""Bytes to server-sent events, as WHATWG HTML 9.2.6 spells them, however the network cuts them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSentEvent:
    data: str
    event: str = "message"
    last_event_id: str = ""


@dataclass(slots=True)
class SSEDecoder:
    """Incremental: `feed` returns the events that became complete. An event without its blank line never comes."""

    _line: bytearray = field(default_factory=bytearray)
    _data: list[str] = field(default_factory=list[str])
    _event: str = ""
    _last_event_id: str = ""
    _is_first_line: bool = True
    _skip_line_feed: bool = False

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        if self._skip_line_feed and chunk:
            # The \r that ended the last chunk has ended its line already: its \n is no second line.
            self._skip_line_feed = False
            chunk = chunk.removeprefix(b"\n")
        events: list[ServerSentEvent] = []
        start = 0
        for end in _LINE_END.finditer(chunk):
            self._line += chunk[start : end.start()]
            start = end.end()
            event = self._end_line()
            if event is not None:
                events.append(event)
        self._line += chunk[start:]
        self._skip_line_feed = chunk.endswith(b"\r")
        return events

    def _end_line(self) -> ServerSentEvent | None:
        raw = bytes(self._line)
        self._line.clear()
        if self._is_first_line:
            self._is_first_line = False
            raw = raw.removeprefix(_BOM)
        if not raw:
            return self._dispatch()
        name, _, value = raw.decode(errors="replace").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._last_event_id = value
        return None  # comments (an empty name), retry, and names nobody knows

    def _dispatch(self) -> ServerSentEvent | None:
        data, event = self._data, self._event
        self._data, self._event = [], ""
        if not data:
            return None
        return ServerSentEvent(data="\n".join(data), event=event or "message", last_event_id=self._last_event_id)

"""What builds write, line by line, to the journal: escaped, and no more than it can bear."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from cupola import notation
from cupola.messages import Log
from cupolad import events
from cupolad.journal import Journal
from cupolad.logs import Stream

_BURST: Final = 1000
"""Lines of a build that are taken at once."""
_PER_SECOND: Final = 100
"""Lines a second that are taken from then on."""
_PAUSE: Final = 1.0
"""Seconds without a line after the journal did not take one."""
_LINE_BYTES: Final = 4096
"""A longer line is broken."""


class BuildJournal:
    """One build's lines; `about` are the fields by which they are found."""

    def __init__(
        self,
        journal: Journal,
        about: Mapping[str, Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal, self._about, self._clock = journal, about, clock
        self._unfinished: dict[Stream, bytes] = {"stdout": b"", "stderr": b""}
        self._room, self._since, self._pause_until = float(_BURST), clock(), 0.0
        self._left_out = 0

    def feed(self, message: Log) -> None:
        """Take in what a build wrote next. May block for a moment."""
        data = self._unfinished[message.stream] + message.data
        *lines, rest = data.split(b"\n")
        for line in lines:
            for start in range(0, len(line) or 1, _LINE_BYTES):
                self._send(message.stream, line[start : start + _LINE_BYTES])
        while len(rest) > _LINE_BYTES:
            self._send(message.stream, rest[:_LINE_BYTES])
            rest = rest[_LINE_BYTES:]
        self._unfinished[message.stream] = rest

    def end(self) -> None:
        """Send what is left, and how much was left out."""
        for stream, rest in self._unfinished.items():
            if rest:
                self._send(stream, rest)
        self._tell_of_left_out()

    def _send(self, stream: Stream, line: bytes) -> None:
        now = self._clock()
        self._room = min(_BURST, self._room + (now - self._since) * _PER_SECOND)
        self._since = now
        if self._room < 1 or now < self._pause_until:
            self._left_out += 1
            return
        self._room -= 1
        self._tell_of_left_out()
        text = notation.printable(line.replace(b"\t", b"    "))
        if not self._tell(events.LINE, events.LINE.text.format(line=text), stream=stream):
            self._left_out += 1
            self._pause_until = self._clock() + _PAUSE

    def _tell_of_left_out(self) -> None:
        event, count = events.LINES_LEFT_OUT, self._left_out
        if count and self._tell(event, event.text.format(count=count), count=count):
            self._left_out = 0

    def _tell(self, event: events.Event, message: str, **fields: Any) -> bool:
        return self._journal.take(message, event.level, event, {**self._about, **fields})

"""Builds' lines on their way to the journal: whole, escaped, and not too many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from cupola.messages import Log
from cupolad import events
from cupolad.buildjournal import BuildJournal
from cupolad.events import Event
from cupolad.journal import Journal


class Taken(Journal):
    """A journal that keeps what it takes, and may be told to take nothing."""

    def __init__(self) -> None:
        self.entries: list[tuple[Event | None, str, Mapping[str, Any]]] = []
        self.asked = 0
        self.hangs = False

    def take(
        self, message: str, level: int, event: Event | None, fields: Mapping[str, Any]
    ) -> bool:
        assert event is not None
        assert level == event.level
        self.asked += 1
        if not self.hangs:
            self.entries.append((event, message, fields))
        return not self.hangs

    def lines(self) -> list[str]:
        """The lines among what it took."""
        return [message for event, message, _ in self.entries if event is events.LINE]

    def left_out(self) -> list[int]:
        """What it was told that it does not get."""
        return [fields["count"] for event, _, fields in self.entries if event is not events.LINE]


@pytest.fixture
def taken() -> Taken:
    """A journal."""
    return Taken()


def test_lines_come_whole_however_they_were_written(taken: Taken) -> None:
    lines = BuildJournal(taken, {"uid": 1})
    for data in (b"a", b"b\n", b"\nc\xc3", b"\xa4\nd"):
        lines.feed(Log("stdout", data))
    lines.feed(Log("stderr", b"other\n"))
    lines.end()
    assert taken.lines() == ["ab", "", "c\u00e4", "other", "d"]
    assert [fields["stream"] for _, _, fields in taken.entries][-2:] == ["stderr", "stdout"]
    assert all(fields["uid"] == 1 for _, _, fields in taken.entries)


def test_long_lines_are_broken(taken: Taken) -> None:
    lines = BuildJournal(taken, {})
    lines.feed(Log("stdout", b"x" * 9000 + b"\n" + b"y" * 5000))
    lines.end()
    assert [len(line) for line in taken.lines()] == [4096, 4096, 808, 4096, 904]


def test_a_flood_is_counted(taken: Taken) -> None:
    now = [0.0]
    lines = BuildJournal(taken, {}, lambda: now[0])
    lines.feed(Log("stdout", b"x\n" * 5000))
    assert len(taken.lines()) == 1000
    now[0] = 2.0
    lines.feed(Log("stdout", b"x\n" * 1000))
    lines.end()
    assert len(taken.lines()) == 1200
    assert taken.left_out() == [4000, 800]


def test_a_journal_that_hangs_is_asked_once_a_second(taken: Taken) -> None:
    now = [0.0]
    lines = BuildJournal(taken, {}, lambda: now[0])
    taken.hangs = True
    lines.feed(Log("stdout", b"x\n" * 100))
    assert taken.asked == 1
    taken.hangs = False
    now[0] = 1.5
    lines.feed(Log("stdout", b"y\n"))
    assert (taken.lines(), taken.left_out()) == (["y"], [100])

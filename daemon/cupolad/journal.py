"""The daemon's messages: structured to the journal where systemd started it, else text to stderr."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from logging_journald import JournaldTransport, check_journal_stream

from cupolad import events
from cupolad.events import Event

IDENTIFIER: Final = "cupolad"

_PRIORITIES: Final = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}
"""Python's levels as those of syslog(3)."""


def set_up() -> Journal | None:
    """Let all messages go where they belong; the journal, if that is where."""
    journal = Journal() if check_journal_stream() else None
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    if journal is not None:
        handler = _JournalHandler(journal)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    return journal


class Journal:
    """The journal's socket. It never blocks: what the journal does not take is counted, and lost."""

    def __init__(self) -> None:
        self._transport = JournaldTransport()
        self._lost = 0

    def send(
        self, message: str, level: int, event: Event | None, fields: Mapping[str, Any]
    ) -> None:
        """Send one entry, with `fields` as CUPOLA_*."""
        if self._lost and self._take(
            _entry(
                events.MESSAGES_LOST.text.format(count=self._lost),
                logging.WARNING,
                events.MESSAGES_LOST,
                {"count": self._lost},
            )
        ):
            self._lost = 0
        self._lost += not self._take(_entry(message, level, event, fields))

    def _take(self, entry: Iterable[tuple[str, bytes]]) -> bool:
        try:
            self._transport.socket.setblocking(False)  # noqa: FBT003
            self._transport.send(entry)
        except OSError:
            return False
        return True


class _JournalHandler(logging.Handler):
    """What is logged, as entries of the journal."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        message = record.getMessage()
        if record.exc_info is not None:
            message += "\n" + "".join(traceback.format_exception(*record.exc_info))
        self._journal.send(
            message, record.levelno, getattr(record, "event", None), getattr(record, "fields", {})
        )


def _entry(
    message: str, level: int, event: Event | None, fields: Mapping[str, Any]
) -> Iterator[tuple[str, bytes]]:
    """The fields of an entry (systemd.journal-fields(7)). As bytes, no value can forge another."""
    yield "MESSAGE", _bytes(message)
    yield "PRIORITY", b"%d" % _PRIORITIES.get(level, 6)
    yield "SYSLOG_IDENTIFIER", IDENTIFIER.encode()
    if event is not None:
        yield "MESSAGE_ID", event.message_id.encode()
    for name, value in fields.items():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            yield f"CUPOLA_{name.upper()}", _bytes(one)


def _bytes(value: Any) -> bytes:
    return str(value).encode(errors="surrogateescape")

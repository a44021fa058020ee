"""The daemon's messages: structured to the journal where systemd started it, else text to stderr."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, Final

from logging_journald import JournaldTransport, check_journal_stream

from cupolad import events
from cupolad.events import Event
from cupolad.launch.systemd import unit_of

IDENTIFIER: Final = "cupolad"

_PRIORITIES: Final = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}
"""Python's levels as those of syslog(3)."""

_PATIENCE: Final = 0.2


def set_up() -> Journal | None:
    """Let all messages go where they belong; a journal for builds' logs, if there is one."""
    there_is_one = check_journal_stream()
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    if there_is_one:
        handler = _JournalHandler(Journal(0))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    return Journal(_PATIENCE) if there_is_one else None


class Journal:
    """The journal's socket. `patience`: seconds that one entry may wait for the journal."""

    def __init__(self, patience: float) -> None:
        self._transport, self._patience = JournaldTransport(), patience

    def take(
        self, message: str, level: int, event: Event | None, fields: Mapping[str, Any]
    ) -> bool:
        """Whether the journal has taken an entry, with `fields` as CUPOLA_*."""
        try:
            self._transport.socket.settimeout(self._patience)
            self._transport.send(_entry(message, level, event, fields))
        except OSError:
            return False
        return True


class _JournalHandler(logging.Handler):
    """What is logged, as entries of the journal; what it does not take is counted, and lost."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        message = record.getMessage()
        if record.exc_info is not None:
            message += "\n" + "".join(traceback.format_exception(*record.exc_info))
        if self._lost:
            lost, fields = events.MESSAGES_LOST, {"count": self._lost}
            if self._journal.take(lost.text.format_map(fields), lost.level, lost, fields):
                self._lost = 0
        event, fields = getattr(record, "event", None), getattr(record, "fields", {})
        self._lost += not self._journal.take(message, record.levelno, event, fields)


def _entry(
    message: str, level: int, event: Event | None, fields: Mapping[str, Any]
) -> Iterator[tuple[str, bytes]]:
    """The fields of an entry (systemd.journal-fields(7)). As bytes, no value can forge another."""
    yield "MESSAGE", _bytes(message)
    yield "PRIORITY", b"%d" % _PRIORITIES.get(level, 6)
    yield "SYSLOG_IDENTIFIER", IDENTIFIER.encode()
    if event is not None:
        yield "MESSAGE_ID", event.message_id.encode()
    if "build_id" in fields:
        # `journalctl -u` looks for it, too, in what root says of a unit.
        yield "OBJECT_SYSTEMD_UNIT", unit_of(fields["build_id"]).encode()
    for name, value in fields.items():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            yield f"CUPOLA_{name.upper()}", _bytes(one)


def _bytes(value: Any) -> bytes:
    return str(value).encode(errors="surrogateescape")

"""How far an import or export has come: plain counters, written by one thread, read by any."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Progress:
    """Counters of one import or export; totals are 0 as long as they are not known."""

    files_hashed: int = 0
    bytes_hashed: int = 0
    files_to_send: int = 0
    bytes_to_send: int = 0
    files_sent: int = 0
    bytes_sent: int = 0
    files_to_write: int = 0
    bytes_to_write: int = 0
    files_written: int = 0
    bytes_written: int = 0

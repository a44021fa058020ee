"""The SQLite database of the store: which objects are present, and the directories themselves.

An object is present when its row is committed, not when its file exists.  The database is in WAL
mode with full synchronisation, so a committed row survives a power cut, and several processes may
read while one writes.  Files are not touched here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from cupola.nodes import Digest

FORMAT: Final = 1
"""The version of the schema below; a database of another version is refused."""

_SCHEMA: Final = f"""
CREATE TABLE blob (
    digest BLOB PRIMARY KEY,
    size INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE directory (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    size INTEGER NOT NULL,    -- as castore counts it, modulo 2^64 (SQLite's integers are signed)
    depth INTEGER NOT NULL,   -- 1 for a directory without subdirectories
    encoding BLOB NOT NULL
) STRICT;
CREATE TABLE totals (
    blobs INTEGER NOT NULL,
    directories INTEGER NOT NULL,
    bytes INTEGER NOT NULL    -- of blobs and encodings
) STRICT;
INSERT INTO totals VALUES (0, 0, 0);
CREATE TRIGGER blob_added AFTER INSERT ON blob BEGIN
    UPDATE totals SET blobs = blobs + 1, bytes = bytes + NEW.size;
END;
CREATE TRIGGER directory_added AFTER INSERT ON directory BEGIN
    UPDATE totals SET directories = directories + 1, bytes = bytes + length(NEW.encoding);
END;
PRAGMA user_version = {FORMAT};
"""  # noqa: S608 - the number is our own

_BUSY_SECONDS: Final = 60
_CHUNK: Final = 1000


@dataclass(frozen=True, slots=True)
class DirectoryRow:
    """What the database holds of one directory."""

    digest: Digest
    size: int
    depth: int
    encoding: bytes


class Database:
    """One process's connection to the database at `path`, safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer, self._writing = self._connect(), threading.Lock()
        self._reader, self._reading = self._connect(), threading.Lock()

    @classmethod
    def create(cls, path: Path) -> None:
        """Make the database if there is none; ValueError if there is one of another format."""
        # SQLite would make it readable by everybody, and its other files like it.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
        with _as_os_error(), sqlite3.connect(path, isolation_level=None) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            elif version != FORMAT:
                raise ValueError(
                    f"{path} has format {version}, this cupolad knows format {FORMAT};"
                    " start the version of cupolad that wrote it"
                )
        connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -4096")
        return connection

    def close(self) -> None:
        """Close both connections."""
        self._reader.close()
        self._writer.close()

    def blob_sizes(self, digests: Iterable[bytes]) -> dict[bytes, int]:
        """The size of each of the blobs that is present."""
        return dict(self._select("SELECT digest, size FROM blob WHERE digest IN", digests))

    def directory_sizes(self, digests: Iterable[bytes]) -> dict[bytes, tuple[int, int]]:
        """Size and depth of each of the directories that is present."""
        rows = self._select("SELECT digest, size, depth FROM directory WHERE digest IN", digests)
        return {digest: (size % 2**64, depth) for digest, size, depth in rows}

    def encodings(self, digests: Iterable[bytes]) -> dict[bytes, bytes]:
        """The encoding of each of the directories that is present."""
        return dict(self._select("SELECT digest, encoding FROM directory WHERE digest IN", digests))

    def totals(self) -> tuple[int, int, int]:
        """Blobs, directories, and the bytes of both."""
        with _as_os_error(), self._reading:
            blobs, directories, size = self._reader.execute("SELECT * FROM totals").fetchone()
        return blobs, directories, size

    def add(self, blobs: Sequence[tuple[bytes, int]], directories: Sequence[DirectoryRow]) -> None:
        """Make these objects present, all in one durable step. Those that are already stay."""
        rows = [(d.digest, _signed(d.size), d.depth, d.encoding) for d in directories]
        with _as_os_error(), self._writing, self._writer:
            self._writer.execute("BEGIN IMMEDIATE")
            self._writer.executemany("INSERT OR IGNORE INTO blob VALUES (?, ?)", blobs)
            self._writer.executemany(
                "INSERT OR IGNORE INTO directory (digest, size, depth, encoding)"
                " VALUES (?, ?, ?, ?)",
                rows,
            )

    def _select(self, query: str, digests: Iterable[bytes]) -> Iterator[Any]:
        remaining = iter(digests)
        while chunk := list(islice(remaining, _CHUNK)):
            marks = ",".join("?" * len(chunk))
            with _as_os_error(), self._reading:
                rows = self._reader.execute(f"{query} ({marks})", chunk).fetchall()
            yield from rows


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """Tell a fault of the database like one of the disk, which it mostly is."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        full = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL
        number = errno.ENOSPC if full else errno.EIO
        raise OSError(number, f"store.sqlite: {error}") from error


def _signed(size: int) -> int:
    """An unsigned 64-bit number as the signed one with the same bits."""
    return size if size < 2**63 else size - 2**64

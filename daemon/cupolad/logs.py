"""A build's log: spooled to disk as it comes, followed by any number of readers at their own pace.

Writers never wait for readers and memory does not grow with the log: a reader that stops reading
holds up nobody.  The spool has no name in the file system, so nothing of it can be left behind.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, Literal, Self

import trio

from cupola.errors import BuildError
from cupola.messages import Log
from cupolad.host import files

Stream = Literal["stdout", "stderr"]

_RECORD: Final = struct.Struct("=BI")
"""One write of the build: its stream and how many bytes it had."""
_STREAMS: Final[tuple[Stream, Stream]] = ("stdout", "stderr")

_BATCH_RECORDS: Final = 1024
_BATCH_BYTES: Final = 64 * 1024


class BuildLog:
    """The spool of one log, of at most `limit` bytes; close it when its last reader is done."""

    def __init__(self, directory: Path, limit: int) -> None:
        self._directory, self._limit = directory, limit
        self._data: int | None = None
        self._index: int | None = None
        self._writing = trio.Lock()
        self._records = 0
        self._grown = trio.Event()
        self._ended = False
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (self._data, self._index):
            if descriptor is not None:
                os.close(descriptor)

    async def append(self, stream: Stream, data: bytes) -> None:
        """Add what the build wrote; `log_limit` when that exceeds the limit."""
        async with self._writing:
            kept = data[: self._limit - self.size]
            await trio.to_thread.run_sync(self._write, stream, kept)
            self.size += len(kept)
            self._records += 1
            self._announce()
        if len(kept) < len(data):
            raise BuildError(
                "log_limit",
                f"the build wrote more than {self._limit} bytes of log",
                limit=self._limit,
            )

    def end(self) -> None:
        """Note that nothing more will come."""
        self._ended = True
        self._announce()

    def _announce(self) -> None:
        self._grown.set()
        self._grown = trio.Event()

    def _write(self, stream: Stream, data: bytes) -> None:
        if self._data is None:
            self._data = _nameless(self._directory)
        if self._index is None:
            self._index = _nameless(self._directory)
        record = _RECORD.pack(_STREAMS.index(stream), len(data))
        files.write_at(self._data, data, self.size)
        files.write_at(self._index, record, self._records * _RECORD.size)

    async def follow(self) -> AsyncIterator[Log]:
        """All of the log from its start, as it comes, until it has ended."""
        record, offset = 0, 0
        while True:
            grown, records, ended = self._grown, self._records, self._ended
            while record < records:
                count, message = await trio.to_thread.run_sync(self._read, record, records, offset)
                record += count
                offset += len(message.data)
                yield message
            if ended:
                return
            await grown.wait()

    def _read(self, record: int, records: int, offset: int) -> tuple[int, Log]:
        """As many records from number `record` on as make one message, and that message."""
        assert self._data is not None
        assert self._index is not None
        count = min(records - record, _BATCH_RECORDS)
        raw = os.pread(self._index, count * _RECORD.size, record * _RECORD.size)
        first, length, taken = None, 0, 0
        for stream, size in _RECORD.iter_unpack(raw):
            if taken and (stream != first or length + size > _BATCH_BYTES):
                break
            first, length, taken = stream, length + size, taken + 1
        data = os.pread(self._data, length, offset)
        return taken, Log(_STREAMS[first or 0], data)

    def tail(self, lines: int, limit: int) -> list[bytes]:
        """The last `lines` lines, out of the last `limit` bytes. Blocks."""
        if self._data is None:
            return []
        start = max(0, self.size - limit)
        return os.pread(self._data, limit, start).splitlines()[-lines:]

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the log, both streams as they came. Blocks."""
        assert self._data is not None, "an empty log has nothing to read"
        return os.pread(self._data, size, offset)


def _nameless(directory: Path) -> int:
    """A new file that no directory holds; it is gone when it is closed."""
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        return os.dup(file.fileno())

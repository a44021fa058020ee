"""The receiving side of an upload: put messages go into a batch, a commit ends it.

Everything here blocks; the session calls it from a worker thread, one message at a time.
"""

from __future__ import annotations

from collections.abc import Sized
from typing import Final

from cupola.errors import invalid_request
from cupola.messages import Commit, PutBlob, PutBlobs, PutChunk, PutDirectories, Stored
from cupola.nodes import Digest
from cupolad.store import Batch, BlobWriter

_MAX_OBJECTS: Final = 20_000
"""In one message: a thread works on it to its end."""

Put = PutBlobs | PutBlob | PutChunk | PutDirectories


class Upload:
    """One client's upload. Close it in any case; what was not committed is dropped."""

    def __init__(self, batch: Batch, max_blob: int) -> None:
        self._batch, self._max_blob = batch, max_blob
        self._writer: BlobWriter | None = None
        self._expected: tuple[Digest, int] | None = None

    def put(self, message: Put) -> None:
        """Take in one message; RequestError if it does not fit."""
        if isinstance(message, PutChunk):
            self._chunk(message)
            return
        if self._writer is not None:
            raise invalid_request("message", "must be a put_chunk: a blob is not complete yet")
        match message:
            case PutBlobs(blobs):
                _check_count("blobs", blobs)
                for index, (digest, data) in enumerate(blobs):
                    try:
                        self._batch.put_blob(data, digest)
                    except ValueError as error:
                        raise invalid_request(
                            f"blobs[{index}].digest", str(error), index=index
                        ) from None
            case PutBlob(digest, size):
                if size > self._max_blob:
                    raise invalid_request("size", f"must be at most {self._max_blob} bytes")
                self._writer, self._expected = self._batch.writer(), (digest, size)
                self._finish_if_whole()
            case PutDirectories(directories):
                _check_count("directories", directories)
                for index, encoding in enumerate(directories):
                    try:
                        self._batch.put_directory(encoding)
                    except ValueError as error:
                        raise invalid_request(
                            f"directories[{index}]", f"is refused: {error}", index=index
                        ) from None

    def _chunk(self, chunk: PutChunk) -> None:
        if self._writer is None or self._expected is None:
            raise invalid_request("message", "must not be a put_chunk: no blob was started")
        if not chunk.data:
            raise invalid_request("data", "must not be empty")
        if self._writer.size + len(chunk.data) > self._expected[1]:
            raise invalid_request("data", "must not go beyond the size that put_blob told")
        self._writer.write(chunk.data)
        self._finish_if_whole()

    def _finish_if_whole(self) -> None:
        assert self._writer is not None
        assert self._expected is not None
        digest, size = self._expected
        if self._writer.size < size:
            return
        writer, self._writer = self._writer, None
        try:
            writer.finish(digest)
        except ValueError as error:
            raise invalid_request("digest", str(error)) from None

    def commit(self, _: Commit) -> Stored:
        """Make all of it durable and present."""
        if self._writer is not None:
            raise invalid_request("message", "must be a put_chunk: a blob is not complete yet")
        self._batch.commit()
        return Stored(
            self._batch.added_blobs, self._batch.added_directories, self._batch.added_bytes
        )

    def close(self) -> None:
        """Drop what was not committed."""
        self._batch.close()


def _check_count(field: str, objects: Sized) -> None:
    if len(objects) > _MAX_OBJECTS:
        raise invalid_request(field, f"must be at most {_MAX_OBJECTS} in one message")

"""The sending side of a download: blobs and directories as messages of bounded size.

Everything here blocks; the session steps through the messages in a worker thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Final

from cupola.errors import infrastructure, missing_objects
from cupola.messages import BlobData, DirectoryData
from cupola.nodes import Digest
from cupolad.host import files
from cupolad.store import Store

_MESSAGE_BYTES: Final = 1024 * 1024
_CHUNK: Final = 500


def blobs(store: Store, digests: Sequence[Digest]) -> Iterator[BlobData]:
    """The contents of the blobs, in order; `missing_objects` at once if one is absent."""
    sizes = store.blob_sizes(digests)
    if absent := [digest for digest in digests if digest not in sizes]:
        raise missing_objects(blobs=absent)
    parts: list[tuple[int, bytes]] = []
    room = _MESSAGE_BYTES
    for index, digest in enumerate(digests):
        with files.opened(store.open_blob(digest)) as descriptor:
            left = sizes[digest]
            while True:
                data = os.read(descriptor, min(left, room))
                parts.append((index, data))
                left -= len(data)
                room -= len(data) + 64  # so that many empty blobs end up in several messages
                if left and not data:
                    raise infrastructure(
                        f"blob {digest.hex()} is damaged; tell the administrator", retryable=False
                    )
                if room <= 0:
                    yield BlobData(tuple(parts))
                    parts, room = [], _MESSAGE_BYTES
                if not left:
                    break
    if parts:
        yield BlobData(tuple(parts))


def directories(store: Store, digests: Sequence[Digest]) -> Iterator[DirectoryData]:
    """The directories, in order; `missing_objects` if one is absent."""
    encodings: list[bytes] = []
    size = 0
    for start in range(0, len(digests), _CHUNK):
        wanted = digests[start : start + _CHUNK]
        found = store.encodings(wanted)
        if absent := [digest for digest in wanted if digest not in found]:
            raise missing_objects(directories=absent)
        for digest in wanted:
            encoding = found[digest]
            if encodings and size + len(encoding) > _MESSAGE_BYTES:
                yield DirectoryData(tuple(encodings))
                encodings, size = [], 0
            encodings.append(encoding)
            size += len(encoding) + 64
    if encodings:
        yield DirectoryData(tuple(encodings))

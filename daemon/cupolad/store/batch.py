"""Adding to the store: objects are gathered in a batch, made durable together, then present.

Bytes are hashed as they are written, or from a file that is shown to have no other writer.  The
order of a commit is: contents durable, files renamed into place, names durable, rows committed.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol, Self

from blake3 import blake3

from cupola.directories import Directory
from cupola.errors import missing_objects
from cupola.nodes import Digest, DirectoryNode, FileNode, Node
from cupolad.host import files
from cupolad.store.blobs import Arrivals, BlobFiles
from cupolad.store.database import Database, DirectoryRow

_FLUSH_FILES: Final = 8192
_FLUSH_BYTES: Final = 512 * 1024 * 1024
_READ_SIZE: Final = 1024 * 1024


class Observer(Protocol):
    """Sees the bytes of a file as they are hashed."""

    def __call__(self, data: memoryview, /) -> object: ...


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """What the store accepts in one directory tree."""

    depth: int = 256
    """Directories below each other."""
    entries: int = 65_536
    """Entries in one directory."""
    directory_bytes: int = 7 * 1024 * 1024
    """Bytes of one directory's encoding; it has to fit into a frame."""


class Batch:
    """New objects on their way into a store. Use it as a context manager; not thread-safe.

    Nothing of a batch is present before `commit` returns, except that a batch that grows large
    commits what it has so far: single objects are of use by themselves, and a directory is only
    ever accepted after everything below it.
    """

    def __init__(self, blobs: BlobFiles, database: Database, limits: StoreLimits) -> None:
        self._database, self._limits = database, limits
        self._arrivals: Arrivals = blobs.new_arrivals()
        self._blobs: dict[Digest, tuple[int, int]] = {}
        """Digest → number among the arrivals, size."""
        self._directories: dict[Digest, DirectoryRow] = {}
        self._bytes = 0
        self.added_blobs = 0
        self.added_directories = 0
        self.added_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop what was not committed."""
        self._arrivals.close()

    def put_blob(self, data: bytes, expected: Digest | None = None) -> Digest:
        """Add a blob that is at hand as a whole; ValueError if it has not the `expected` digest."""
        digest = Digest.of(data)
        if expected is not None and digest != expected:
            raise ValueError("is not the digest of the data")
        if digest not in self._blobs:
            number, descriptor = self._arrivals.new_file()
            with files.opened(descriptor):
                files.write_all(descriptor, data)
            self._arrived(digest, number, len(data))
        return digest

    def writer(self) -> BlobWriter:
        """Start a blob that comes in pieces."""
        return BlobWriter(self, *self._arrivals.new_file())

    def take(
        self, directory: int, name: bytes, descriptor: int, observe: Observer
    ) -> tuple[Digest, int]:
        """Add the regular file `name` in `directory`, open for reading as `descriptor`.

        Returns digest and size.  The file itself becomes the blob, at no cost in bytes, unless
        somebody still has it open for writing: then its bytes are copied.
        """
        if not _has_no_writer(descriptor):
            return self._copy(descriptor, observe)
        hasher, size = blake3(), 0
        for piece in _pieces(descriptor):
            hasher.update(piece)
            observe(piece)
            size += len(piece)
        digest = Digest(hasher.digest())
        if digest not in self._blobs:
            for attribute in os.listxattr(descriptor):
                os.removexattr(descriptor, attribute)
            os.fchown(descriptor, 0, 0)
            os.fchmod(descriptor, 0o444)
            self._arrived(digest, self._arrivals.take(directory, name), size)
        return digest, size

    def _copy(self, descriptor: int, observe: Observer) -> tuple[Digest, int]:
        writer = self.writer()
        for piece in _pieces(descriptor):
            writer.write(piece)
            observe(piece)
        return writer.finish(), writer.size

    def put_directory(self, encoding: bytes) -> DirectoryNode:
        """Add a directory whose contents are present or in this batch.

        ValueError if the encoding is not canonical, too large, or tells a wrong size of an entry;
        `missing_objects` if something is absent.
        """
        if len(encoding) > self._limits.directory_bytes:
            raise ValueError(f"a directory has at most {self._limits.directory_bytes} bytes")
        directory = Directory.decode(encoding)
        if len(directory) > self._limits.entries:
            raise ValueError(f"a directory has at most {self._limits.entries} entries")
        depth = 1 + self._depth_below(directory.nodes())
        if depth > self._limits.depth:
            raise ValueError(f"directories are nested at most {self._limits.depth} deep")
        if directory.digest not in self._directories:
            self._directories[directory.digest] = DirectoryRow(
                directory.digest, directory.size, depth, encoding
            )
            self._bytes += len(encoding)
            self._flush_if_large()
        return directory.node

    def _depth_below(self, nodes: Iterable[Node]) -> int:
        """The depth of the deepest of `nodes`, after a check that each is there as it says."""
        nodes = list(nodes)
        blobs = {node.digest: node.size for node in nodes if isinstance(node, FileNode)}
        directories = {node.digest: node.size for node in nodes if isinstance(node, DirectoryNode)}
        sizes: dict[bytes, int] = {d: self._blobs[d][1] for d in blobs if d in self._blobs}
        sizes |= self._database.blob_sizes(blobs.keys() - sizes.keys())
        known: dict[bytes, tuple[int, int]] = {
            d: (self._directories[d].size, self._directories[d].depth)
            for d in directories
            if d in self._directories
        }
        known |= self._database.directory_sizes(directories.keys() - known.keys())
        check_sizes(nodes, sizes, known)
        return max((depth for _, depth in known.values()), default=0)

    def _arrived(self, digest: Digest, number: int, size: int) -> None:
        self._blobs[digest] = (number, size)
        self._bytes += size
        self._flush_if_large()

    def _flush_if_large(self) -> None:
        count = len(self._blobs) + len(self._directories)
        if count >= _FLUSH_FILES or self._bytes >= _FLUSH_BYTES:
            self.commit()

    def commit(self) -> None:
        """Make everything durable and present. The batch may be used on afterwards."""
        self._arrivals.publish([(digest, number) for digest, (number, _) in self._blobs.items()])
        blobs = [(digest, size) for digest, (_, size) in self._blobs.items()]
        if blobs or self._directories:
            self._database.add(blobs, list(self._directories.values()))
        self.added_blobs += len(blobs)
        self.added_directories += len(self._directories)
        self.added_bytes += self._bytes
        self._blobs.clear()
        self._directories.clear()
        self._bytes = 0


class BlobWriter:
    """One blob that comes in pieces; hashed as it is written. Made by `Batch.writer`."""

    def __init__(self, batch: Batch, number: int, descriptor: int) -> None:
        self._batch, self._number, self._descriptor = batch, number, descriptor
        self._hasher = blake3()
        self.size = 0

    def write(self, data: bytes | memoryview) -> None:
        """Add the next bytes."""
        files.write_all(self._descriptor, data)
        self._hasher.update(data)
        self.size += len(data)

    def finish(self, expected: Digest | None = None) -> Digest:
        """End the blob; ValueError, and no blob, if its digest is not the `expected` one."""
        os.close(self._descriptor)
        digest = Digest(self._hasher.digest())
        if expected is not None and digest != expected:
            self._batch._arrivals.drop(self._number)
            raise ValueError("is not the digest of the data")
        self._batch._arrived(digest, self._number, self.size)
        return digest

    def abandon(self) -> None:
        """Give up in the middle."""
        os.close(self._descriptor)


def check_sizes(
    nodes: Iterable[Node],
    blobs: dict[bytes, int],
    directories: dict[bytes, tuple[int, int]],
) -> None:
    """Refuse `nodes` that are not present, or not as large as they say.

    `blobs` holds the size of each blob that is present, `directories` size and depth.
    """
    absent_blobs, absent_directories = [], []
    for node in nodes:
        if isinstance(node, FileNode):
            actual = blobs.get(node.digest)
            if actual is None:
                absent_blobs.append(node.digest)
        elif isinstance(node, DirectoryNode):
            found = directories.get(node.digest)
            actual = None if found is None else found[0]
            if actual is None:
                absent_directories.append(node.digest)
        else:
            continue
        if actual is not None and actual != node.size:
            raise ValueError(f"{node.digest.hex()} has size {actual}, not {node.size}")
    if absent_blobs or absent_directories:
        raise missing_objects(absent_blobs, absent_directories)


def _has_no_writer(descriptor: int) -> bool:
    """Whether nobody has the file open for writing: only then is a read lease granted."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        return False
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return True


def _pieces(descriptor: int) -> Iterable[memoryview]:
    """The bytes of a file, in pieces that are valid until the next one is asked for."""
    buffer = bytearray(min(_READ_SIZE, os.fstat(descriptor).st_size + 1))
    view = memoryview(buffer)
    while count := os.readv(descriptor, [view]):
        yield view[:count]

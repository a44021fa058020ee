"""Adding to the store: objects are checked and gathered, and committed in groups.

Bytes are hashed as they are written, or from a file that is shown to have no other writer.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol, Self

from blake3 import blake3

from cupola.directories import Directory
from cupola.errors import missing_objects
from cupola.nodes import Digest, DirectoryNode, FileNode, Node
from cupolad.host import files
from cupolad.store.blobs import Arrivals, BlobFiles
from cupolad.store.database import Database, DirectoryRow
from cupolad.store.group import CommitGroup

_GROUP_OBJECTS: Final = 4096
_GROUP_BYTES: Final = 256 * 1024 * 1024
_READ_SIZE: Final = 1024 * 1024


class Observer(Protocol):
    """Sees the bytes of a file as they are hashed."""

    def __call__(self, data: memoryview, /) -> object: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """What the store accepts."""

    depth: int = 256
    """Directories below each other."""
    entries: int = 65_536
    """Entries in one directory."""
    directory_bytes: int = 7 * 1024 * 1024
    """Bytes of one directory's encoding; it has to fit into a frame."""
    blob_bytes: int = 64 * 1024**3


class Batch:
    """New objects on their way into a store. Use it as a context manager; not thread-safe.

    Nothing of a batch is present before `commit` returns, except that a batch that grows large
    commits what it has so far, in a thread of its own, while it is filled further: single objects
    are of use by themselves, and a directory is only ever accepted after everything below it.
    """

    def __init__(
        self, blobs: BlobFiles, database: Database, limits: StoreLimits, token: str
    ) -> None:
        self._files, self._database, self._limits = blobs, database, limits
        self._token = token
        self._filling = CommitGroup(blobs.new_arrivals(token))
        self._committing: CommitGroup | None = None
        self._committer: ThreadPoolExecutor | None = None
        self._writer: BlobWriter | None = None
        self._commit: Future[None] | None = None
        self.added_blobs = 0
        self.added_directories = 0
        self.added_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop what was not committed."""
        if self._writer is not None:
            self._writer.abandon()
        if self._committer is not None:
            self._committer.shutdown()
        self._filling.close()

    def commit(self) -> None:
        """Make everything durable and present. The batch may be used on afterwards."""
        self._await_commit()
        group, self._filling = self._filling, CommitGroup(self._files.new_arrivals(self._token))
        group.commit(self._database)
        self._count(group)

    def _commit_if_large(self) -> None:
        """Start to commit what there is, once the last such commit is through."""
        if len(self._filling) < _GROUP_OBJECTS and self._filling.bytes < _GROUP_BYTES:
            return
        self._await_commit()
        if self._committer is None:
            self._committer = ThreadPoolExecutor(1, "commit")
        group, self._filling = self._filling, CommitGroup(self._files.new_arrivals(self._token))
        self._committing = group
        self._commit = self._committer.submit(group.commit, self._database)

    def _await_commit(self) -> None:
        """Wait for the commit that runs, if one does; it raises here what it raised there."""
        if self._commit is None or self._committing is None:
            return
        commit, group = self._commit, self._committing
        self._commit = None
        commit.result()
        self._committing = None
        self._count(group)

    def _count(self, group: CommitGroup) -> None:
        self.added_blobs += len(group.blobs)
        self.added_directories += len(group.directories)
        self.added_bytes += group.bytes

    def put_blob(self, data: bytes, expected: Digest | None = None) -> Digest:
        """Add a blob that is at hand as a whole; ValueError if it has not the `expected` digest."""
        digest = Digest.of(data)
        if expected is not None and digest != expected:
            raise ValueError("is not the digest of the data")
        number, descriptor = self._filling.arrivals.new_file()
        with files.opened(descriptor):
            files.write_all(descriptor, data)
        self._arrived(digest, number, len(data))
        return digest

    def writer(self) -> BlobWriter:
        """Start a blob that comes in pieces. Finish it before anything else is added."""
        self._writer = BlobWriter(self._arrived, self._filling.arrivals)
        return self._writer

    def _arrived(self, digest: Digest, number: int, size: int) -> None:
        self._filling.add_blob(digest, number, size)
        self._commit_if_large()

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
        for attribute in os.listxattr(descriptor):
            os.removexattr(descriptor, attribute)
        os.fchown(descriptor, 0, 0)
        os.fchmod(descriptor, 0o444)
        digest = Digest(hasher.digest())
        self._arrived(digest, self._filling.arrivals.take(directory, name), size)
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
        self._filling.add_directory(DirectoryRow(directory.digest, directory.size, depth, encoding))
        self._commit_if_large()
        return directory.node

    def _depth_below(self, nodes: Iterable[Node]) -> int:
        """The depth of the deepest of `nodes`, after a check that each is there as it says."""
        nodes = list(nodes)
        blobs = {node.digest: node.size for node in nodes if isinstance(node, FileNode)}
        directories = {node.digest: node.size for node in nodes if isinstance(node, DirectoryNode)}
        sizes: dict[bytes, int] = {}
        known: dict[bytes, tuple[int, int]] = {}
        for group in filter(None, (self._filling, self._committing)):
            sizes |= {d: group.blobs[d][1] for d in blobs if d in group.blobs}
            rows = (group.directories[d] for d in directories if d in group.directories)
            known |= {row.digest: (row.size, row.depth) for row in rows}
        sizes |= self._database.blob_sizes(blobs.keys() - sizes.keys())
        known |= self._database.directory_sizes(directories.keys() - known.keys())
        check_sizes(nodes, sizes, known)
        return max((depth for _, depth in known.values()), default=0)


class BlobWriter:
    """One blob that comes in pieces; hashed as it is written. Made by `Batch.writer`."""

    def __init__(self, arrived: Callable[[Digest, int, int], None], arrivals: Arrivals) -> None:
        self._arrived, self._arrivals = arrived, arrivals
        self._number, self._descriptor = arrivals.new_file()
        self._hasher = blake3()
        self.size = 0

    def write(self, data: bytes | memoryview) -> None:
        """Add the next bytes."""
        files.write_all(self._descriptor, data)
        self._hasher.update(data)
        self.size += len(data)

    def finish(self, expected: Digest | None = None) -> Digest:
        """End the blob; ValueError, and no blob, if its digest is not the `expected` one."""
        self.abandon()
        digest = Digest(self._hasher.digest())
        if expected is not None and digest != expected:
            self._arrivals.drop(self._number)
            raise ValueError("is not the digest of the data")
        self._arrived(digest, self._number, self.size)
        return digest

    def abandon(self) -> None:
        """Write no more."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


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

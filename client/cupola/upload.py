"""Uploading a hashed tree: asks from the root down what the daemon lacks, then sends just that.

A tree that the daemon knows costs one question.  What is missing is read a second time; a file
that has changed since it was hashed is an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, TypeVar

import trio
from blake3 import blake3

from cupola import localfiles
from cupola.connection import Connection
from cupola.importer import ImportPathError, Tree, unreadable
from cupola.messages import (
    Absent,
    Commit,
    Missing,
    PutBlob,
    PutBlobs,
    PutChunk,
    PutDirectories,
    Stored,
)
from cupola.nodes import Digest, DirectoryNode, FileNode
from cupola.notation import printable
from cupola.progress import Progress

T = TypeVar("T")
Put = PutBlobs | PutBlob | PutChunk | PutDirectories

_CHUNK: Final = 1024 * 1024
_SMALL: Final = 256 * 1024
"""Files up to this size are sent several to a message."""
_OVERHEAD: Final = 64
"""What an object counts for besides its bytes, which bounds the objects of a message."""
_QUESTION: Final = 10_000
"""Digests in one question."""


async def upload(connection: Connection, tree: Tree, progress: Progress) -> None:
    """Make everything of `tree` present in the daemon's store, durably."""
    blobs, directories = await _missing(connection, tree)
    progress.files_to_send = len(blobs)
    progress.bytes_to_send = sum(tree.files[digest][1] for digest in blobs)
    if not blobs and not directories:
        return
    messages = _messages(tree, blobs, directories, progress)
    while (message := await trio.to_thread.run_sync(next, messages, None)) is not None:
        await connection.send(message)
    await connection.ask(Commit(), Stored)


async def _missing(connection: Connection, tree: Tree) -> tuple[list[Digest], set[Digest]]:
    """The blobs, in the order of the tree, and the directories that the daemon lacks."""
    absent_directories: set[Digest] = set()
    blobs: dict[Digest, None] = {}
    frontier: list[Digest] = []
    if isinstance(tree.root, DirectoryNode):
        frontier.append(tree.root.digest)
    elif isinstance(tree.root, FileNode):
        blobs[tree.root.digest] = None
    while frontier:
        below: dict[Digest, None] = {}
        for question in _batches(frontier, _QUESTION):
            absent = await connection.ask(Missing(directories=question), Absent)
            absent_directories.update(absent.directories)
            for digest in absent.directories:
                for node in tree.directories[digest].nodes():
                    if isinstance(node, DirectoryNode):
                        below[node.digest] = None
                    elif isinstance(node, FileNode):
                        blobs[node.digest] = None
        frontier = [digest for digest in below if digest not in absent_directories]
    absent_blobs: list[Digest] = []
    for question in _batches(blobs, _QUESTION):
        absent_blobs += (await connection.ask(Missing(blobs=question), Absent)).blobs
    return absent_blobs, absent_directories


def _batches(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    iterator = iter(items)
    while batch := tuple(islice(iterator, size)):
        yield batch


def _messages(
    tree: Tree, blobs: Sequence[Digest], directories: set[Digest], progress: Progress
) -> Iterator[Put]:
    """What to send, in an order that the daemon accepts. Blocks."""
    yield from _blob_messages(tree, blobs, progress)
    batch: list[bytes] = []
    size = 0
    for digest, directory in tree.directories.items():
        if digest not in directories:
            continue
        if batch and size + len(directory.encoding) + _OVERHEAD > _CHUNK:
            yield PutDirectories(tuple(batch))
            batch, size = [], 0
        batch.append(directory.encoding)
        size += len(directory.encoding) + _OVERHEAD
    if batch:
        yield PutDirectories(tuple(batch))


def _blob_messages(tree: Tree, blobs: Sequence[Digest], progress: Progress) -> Iterator[Put]:
    batch: list[tuple[Digest, bytes]] = []
    size_of_batch = 0
    for digest in blobs:
        path, size = tree.files[digest]
        try:
            descriptor = localfiles.open_deep(path, localfiles.FILE)
        except OSError as error:
            raise unreadable(path, error) from None
        try:
            if size > _SMALL:
                yield PutBlob(digest, size)
                yield from _chunks(descriptor, path, digest, size, progress)
                continue
            data = os.read(descriptor, size + 1)
        finally:
            os.close(descriptor)
        if blake3(data).digest() != digest:
            raise _changed(path)
        batch.append((digest, data))
        size_of_batch += size + _OVERHEAD
        progress.files_sent += 1
        progress.bytes_sent += size
        if size_of_batch >= _CHUNK:
            yield PutBlobs(tuple(batch))
            batch, size_of_batch = [], 0
    if batch:
        yield PutBlobs(tuple(batch))


def _chunks(
    descriptor: int, path: bytes, digest: Digest, size: int, progress: Progress
) -> Iterator[PutChunk]:
    """The contents of a large file. The last piece is only given away if the digest is right."""
    hasher, left = blake3(), size
    while left:
        data = os.read(descriptor, min(left, _CHUNK))
        hasher.update(data)
        left -= len(data)
        if not data or (not left and hasher.digest() != digest):
            raise _changed(path)
        yield PutChunk(data)
        progress.bytes_sent += len(data)
    progress.files_sent += 1


def _changed(path: bytes) -> ImportPathError:
    return ImportPathError(f"{printable(path)} changed while it was imported; import it again")

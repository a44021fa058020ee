"""Exporting: writes a node to a path of the user's that does not exist yet.

Everything is first written to a fresh directory beside the destination that only the user can
reach, by descriptor and without following symlinks, and moved into place at the end: nothing is
ever overwritten, nothing is written elsewhere whatever names and links a node holds, and what is
cut short leaves nothing at the destination.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from cupola import download, localfiles
from cupola.connection import Connection
from cupola.directories import Directory
from cupola.nodes import Digest, DirectoryNode, FileNode, Node, SymlinkNode
from cupola.progress import Progress

_BATCH_FILES: Final = 1000
_BATCH_BYTES: Final = 64 * 1024 * 1024
_ROOT: Final = b"root"


class ExportPathError(ValueError):
    """The destination cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a file goes: the directories below the staging one, and its name."""

    parents: tuple[bytes, ...]
    name: bytes
    node: FileNode


async def export(connection: Connection, node: Node, destination: Path, progress: Progress) -> None:
    """Write `node` to `destination`; ExportPathError if something is there already."""
    if await trio.to_thread.run_sync(os.path.lexists, destination):
        raise ExportPathError(f"{destination} exists already; remove it or choose another place")
    directories = await download.directories(connection, node)
    staging = destination.with_name(f".cupola-{secrets.token_hex(8)}")
    try:
        await trio.to_thread.run_sync(lambda: staging.mkdir(mode=0o700))
    except OSError as error:
        raise ExportPathError(f"cannot write to {destination.parent}: {error.strerror}") from None
    try:
        await _fill(connection, node, directories, staging, progress)
        await trio.to_thread.run_sync(_move, staging / os.fsdecode(_ROOT), destination)
    except OSError as error:
        raise ExportPathError(f"cannot write {destination}: {error.strerror}") from None
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_remove, staging)


async def _fill(
    connection: Connection,
    node: Node,
    directories: Mapping[Digest, Directory],
    staging: Path,
    progress: Progress,
) -> None:
    top = os.open(staging, localfiles.DIRECTORY)
    try:
        places = await trio.to_thread.run_sync(_make_skeleton, top, node, directories)
        progress.files_to_write = len(places)
        progress.bytes_to_write = sum(place.node.size for place in places)
        for batch in _batches(places):
            writer = _Writer(top, batch, progress)
            try:
                async for pieces in download.blobs(connection, [p.node for p in batch]):
                    await trio.to_thread.run_sync(writer.write, pieces)
            finally:
                writer.close()
    finally:
        os.close(top)


def _make_skeleton(top: int, root: Node, directories: Mapping[Digest, Directory]) -> list[_Place]:
    """Make all directories and symlinks of `root`; where its files go."""
    places: list[_Place] = []
    pending: list[tuple[tuple[bytes, ...], bytes, Node]] = [((), _ROOT, root)]
    while pending:
        parents, name, node = pending.pop()
        if isinstance(node, FileNode):
            places.append(_Place(parents, name, node))
            continue
        directory = localfiles.open_below(top, parents)
        try:
            if isinstance(node, SymlinkNode):
                os.symlink(node.target, name, dir_fd=directory)
            else:
                os.mkdir(name, 0o777, dir_fd=directory)
        finally:
            os.close(directory)
        if isinstance(node, DirectoryNode):
            below = (*parents, name)
            pending += [(below, child, n) for child, n in directories[node.digest].items()]
    return places


def _batches(places: list[_Place]) -> Iterator[list[_Place]]:
    batch: list[_Place] = []
    size = 0
    for place in places:
        batch.append(place)
        size += place.node.size
        if len(batch) >= _BATCH_FILES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class _Writer:
    """Writes the files of one batch, one after the other."""

    def __init__(self, top: int, batch: list[_Place], progress: Progress) -> None:
        self._top, self._batch, self._progress = top, batch, progress
        self._index = -1
        self._file: int | None = None
        self._parents: tuple[bytes, ...] | None = None
        self._directory: int | None = None

    def write(self, pieces: Iterable[tuple[int, bytes]]) -> None:
        """Add pieces: number of the file, which is that of the last piece or the next, and bytes."""
        for index, data in pieces:
            if index != self._index:
                self._next_file(index)
            assert self._file is not None
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
            self._progress.bytes_written += len(data)

    def _next_file(self, index: int) -> None:
        self._close_file()
        place = self._batch[index]
        if place.parents != self._parents:
            self._close_directory()
            self._directory = localfiles.open_below(self._top, place.parents)
            self._parents = place.parents
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        mode = 0o777 if place.node.executable else 0o666
        self._file = os.open(place.name, flags, mode, dir_fd=self._directory)
        self._index = index

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
            self._progress.files_written += 1

    def _close_directory(self) -> None:
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None

    def close(self) -> None:
        """Close what is open."""
        self._close_file()
        self._close_directory()


def _move(source: Path, destination: Path) -> None:
    """Rename, without replacing anything that has appeared meanwhile."""
    if source.is_dir() and not source.is_symlink():
        # Only an empty directory could be replaced by this.
        source.rename(destination)
        return
    try:
        os.link(source, destination, follow_symlinks=False)
    except FileExistsError:
        raise ExportPathError(f"{destination} appeared meanwhile and was left alone") from None


def _remove(staging: Path) -> None:
    shutil.rmtree(staging, ignore_errors=True)

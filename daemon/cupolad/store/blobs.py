"""Blob files: where they lie, and how a file becomes one.

A blob is written under a random name among the arrivals, made durable, and only then renamed to
the name that its digest gives it.  Whether a blob counts as present is not known
here (`database.py` knows).
"""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cupola.nodes import Digest
from cupolad.host import files, kernel

FEW: Final = 16
"""Up to so many files are synced one by one; more of them by one sync of the file system."""

_SPREAD: Final = 64
"""Directories that new files are made in, in turn."""


class BlobFiles:
    """`blobs/<2 hex>/<64 hex>` and `incoming/<2 hex>/<token>-<number>` below the state directory.

    The directories below `incoming` are asked to lie far apart on the disk.  In one place, ext4
    can take several times as long for each new file if others were deleted there lately.
    """

    def __init__(self, state: Path) -> None:
        self._blobs = files.open_directory(state / "blobs")
        self._incoming = files.open_directory(state / "incoming")

    @staticmethod
    def create(state: Path) -> None:
        """Make the directories that are missing and drop what a killed writer left."""
        for name, count in (("blobs", 256), ("incoming", _SPREAD)):
            (state / name).mkdir(mode=0o700, exist_ok=True)
            if name == "incoming":
                kernel.spread_subdirectories(state / name)
            for number in range(count):
                (state / name / f"{number:02x}").mkdir(mode=0o700, exist_ok=True)
        for directory in (state / "incoming").iterdir():
            with files.opened(files.open_directory(directory)) as descriptor:
                for left in os.listdir(descriptor):
                    files.remove_tree(descriptor, os.fsencode(left))

    def close(self) -> None:
        """Close the directories."""
        os.close(self._blobs)
        os.close(self._incoming)

    def open(self, digest: bytes) -> int:
        """Open the file of a blob for reading; FileNotFoundError if there is none."""
        return os.open(
            _name(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._blobs
        )

    def new_arrivals(self, token: str) -> Arrivals:
        """A place for a writer's files; `token` is the writer's own."""
        return Arrivals(self._blobs, self._incoming, token)

    @staticmethod
    def drop_arrivals(state: Path, token: str) -> None:
        """Remove what the writer with this token, which is no more, has left."""
        for directory in (state / "incoming").iterdir():
            for file in directory.glob(f"{token}.*"):
                file.unlink(missing_ok=True)


class Arrivals:
    """The files of one writer that are not blobs yet, each known by its number."""

    def __init__(self, blobs: int, incoming: int, token: str) -> None:
        self._blobs = blobs
        # Opened anew, because the kernel tells of a failed write once for each such opening.
        self._incoming = os.open(b".", files.DIRECTORY, dir_fd=incoming)
        self._name = f"{token}.{secrets.token_hex(8)}".encode()
        self._numbers = itertools.count(secrets.randbelow(_SPREAD))
        self._here: set[int] = set()

    def new_file(self) -> tuple[int, int]:
        """A new empty file: its number, and it opened for writing."""
        number = next(self._numbers)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(self._path(number), flags, 0o444, dir_fd=self._incoming)
        self._here.add(number)
        return number, descriptor

    def take(self, directory: int, name: bytes) -> int:
        """Move the file `name` out of `directory` to here; its number."""
        number = next(self._numbers)
        os.rename(name, self._path(number), src_dir_fd=directory, dst_dir_fd=self._incoming)
        self._here.add(number)
        return number

    def drop(self, number: int) -> None:
        """Remove a file."""
        os.unlink(self._path(number), dir_fd=self._incoming)
        self._here.remove(number)

    def publish(self, arrived: Sequence[tuple[Digest, int]]) -> None:
        """Turn files (digest, number) into blobs, durably. A blob that exists is replaced."""
        if not arrived:
            return
        few = len(arrived) <= FEW
        if few:
            for _, number in arrived:
                self._sync(self._path(number), os.O_RDONLY, self._incoming)
        else:
            kernel.syncfs(self._incoming)
        for digest, number in arrived:
            source, target = self._path(number), _name(digest)
            os.rename(source, target, src_dir_fd=self._incoming, dst_dir_fd=self._blobs)
            self._here.remove(number)
        if few:
            for shard in {_name(digest)[:2] for digest, _ in arrived}:
                self._sync(shard, files.DIRECTORY, self._blobs)
        else:
            kernel.syncfs(self._incoming)

    def close(self) -> None:
        """Remove whatever was not published."""
        for number in tuple(self._here):
            self.drop(number)
        if self._incoming >= 0:
            os.close(self._incoming)
            self._incoming = -1

    def _path(self, number: int) -> bytes:
        return b"%02x/%s-%d" % (number % _SPREAD, self._name, number)

    @staticmethod
    def _sync(name: bytes, flags: int, directory: int) -> None:
        with files.opened(os.open(name, flags | os.O_CLOEXEC, dir_fd=directory)) as descriptor:
            os.fsync(descriptor)


def _name(digest: bytes) -> bytes:
    text = digest.hex().encode()
    return text[:2] + b"/" + text

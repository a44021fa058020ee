"""Blob files: where they lie, and how a file becomes one.

A blob is written under a random name in a directory of its writer's own, made durable, and only
then renamed to the name that its digest gives it.  Whether a blob counts as present is not known
here (`database.py` knows).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cupola.nodes import Digest
from cupolad.host import files, kernel

FEW: Final = 16
"""Up to so many files are synced one by one; more of them by one sync of the file system."""


class BlobFiles:
    """`blobs/<2 hex>/<64 hex>` and `incoming/<token>/<number>` below the state directory."""

    def __init__(self, state: Path) -> None:
        self._blobs = files.open_directory(state / "blobs")
        self._incoming = files.open_directory(state / "incoming")

    @staticmethod
    def create(state: Path) -> None:
        """Make the directories that are missing and drop what a killed writer left."""
        for name in ("blobs", "incoming"):
            (state / name).mkdir(mode=0o700, exist_ok=True)
        for number in range(256):
            (state / "blobs" / f"{number:02x}").mkdir(mode=0o700, exist_ok=True)
        with files.opened(files.open_directory(state / "incoming")) as incoming:
            for name in os.listdir(incoming):
                files.remove_tree(incoming, os.fsencode(name))

    def close(self) -> None:
        """Close the directories."""
        os.close(self._blobs)
        os.close(self._incoming)

    def open(self, digest: bytes) -> int:
        """Open the file of a blob for reading; FileNotFoundError if there is none."""
        return os.open(
            _name(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._blobs
        )

    def new_arrivals(self) -> Arrivals:
        """A place for one writer's files."""
        return Arrivals(self._blobs, self._incoming)


class Arrivals:
    """The files of one writer that are not blobs yet, each known by its number.

    They lie in a directory of their own, which is made for the first of them.
    """

    def __init__(self, blobs: int, incoming: int) -> None:
        self._blobs, self._incoming = blobs, incoming
        self._token = secrets.token_bytes(16).hex().encode()
        self._made: int | None = None
        self._count = 0

    @property
    def _directory(self) -> int:
        if self._made is None:
            os.mkdir(self._token, 0o700, dir_fd=self._incoming)
            self._made = os.open(self._token, files.DIRECTORY, dir_fd=self._incoming)
        return self._made

    def new_file(self) -> tuple[int, int]:
        """A new empty file: its number, and it opened for writing."""
        number = self._next()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return number, os.open(b"%d" % number, flags, 0o444, dir_fd=self._directory)

    def take(self, directory: int, name: bytes) -> int:
        """Move the file `name` out of `directory` to here; its number."""
        number = self._next()
        os.rename(name, b"%d" % number, src_dir_fd=directory, dst_dir_fd=self._directory)
        return number

    def drop(self, number: int) -> None:
        """Remove a file."""
        os.unlink(b"%d" % number, dir_fd=self._directory)

    def publish(self, arrived: Sequence[tuple[Digest, int]]) -> None:
        """Turn files (digest, number) into blobs, durably. A blob that exists is replaced."""
        if not arrived:
            return
        few = len(arrived) <= FEW
        if few:
            for _, number in arrived:
                self._sync(b"%d" % number, os.O_RDONLY, self._directory)
        else:
            kernel.syncfs(self._directory)
        for digest, number in arrived:
            os.rename(
                b"%d" % number, _name(digest), src_dir_fd=self._directory, dst_dir_fd=self._blobs
            )
        if few:
            for shard in {_name(digest)[:2] for digest, _ in arrived}:
                self._sync(shard, files.DIRECTORY, self._blobs)
        else:
            kernel.syncfs(self._blobs)

    def close(self) -> None:
        """Remove whatever was not published."""
        if self._made is not None:
            os.close(self._made)
            self._made = None
            files.remove_tree(self._incoming, self._token)

    def _next(self) -> int:
        self._count += 1
        return self._count

    @staticmethod
    def _sync(name: bytes, flags: int, directory: int) -> None:
        with files.opened(os.open(name, flags | os.O_CLOEXEC, dir_fd=directory)) as descriptor:
            os.fsync(descriptor)


def _name(digest: bytes) -> bytes:
    text = digest.hex().encode()
    return text[:2] + b"/" + text

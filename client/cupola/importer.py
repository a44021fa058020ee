"""Importing: hashes what is at a path of the user's, without a daemon.

Names are bytes and symlinks are never followed.  What is sent afterwards is `upload.py`'s.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import Final

from blake3 import blake3

from cupola import localfiles
from cupola.directories import Directory
from cupola.nodes import Digest, DirectoryNode, FileNode, Name, Node, SymlinkNode
from cupola.notation import printable
from cupola.progress import Progress

MAX_DEPTH: Final = 256
"""Directories below each other that a daemon accepts by default."""

_CHUNK: Final = 1024 * 1024


class ImportPathError(ValueError):
    """Something at or below the path cannot be imported; the message says what and why."""


@dataclass(slots=True)
class Tree:
    """A path of the user's, hashed.

    `directories`: each once, children before parents.  `files`: where to find each blob's bytes,
    and how many they are.
    """

    root: Node
    directories: dict[Digest, Directory] = field(default_factory=dict)
    files: dict[Digest, tuple[bytes, int]] = field(default_factory=dict)


@dataclass(slots=True)
class _Level:
    """A directory that is being hashed."""

    name: bytes
    path: bytes
    descriptor: int
    subdirectories: list[bytes]
    entries: dict[Name, Node]


def scan(path: str | os.PathLike[str] | bytes, progress: Progress) -> Tree:
    """Hash what is at `path`: a file, a symlink (which is not followed) or a directory. Blocks."""
    where = os.fsencode(path)
    tree = Tree(SymlinkNode(b"."))
    try:
        status = os.lstat(where)
    except OSError as error:
        raise unreadable(where, error) from None
    if stat.S_ISDIR(status.st_mode):
        tree.root = _scan_directory(where, tree, progress)
    else:
        tree.root = _scan_leaf(None, where, where, tree, progress)
    return tree


def _scan_directory(root: bytes, tree: Tree, progress: Progress) -> DirectoryNode:
    levels = [_enter(None, root, root, tree, progress)]
    try:
        while True:
            level = levels[-1]
            if level.subdirectories:
                if len(levels) >= MAX_DEPTH:
                    raise ImportPathError(
                        f"{printable(level.path)} is nested more than {MAX_DEPTH} directories deep"
                    )
                name = level.subdirectories.pop()
                path = level.path + b"/" + name
                levels.append(_enter(level.descriptor, name, path, tree, progress))
                continue
            directory = Directory(level.entries)
            tree.directories.setdefault(directory.digest, directory)
            os.close(levels.pop().descriptor)
            if not levels:
                return directory.node
            levels[-1].entries[Name(level.name)] = directory.node
    finally:
        for level in levels:
            os.close(level.descriptor)


def _enter(parent: int | None, name: bytes, path: bytes, tree: Tree, progress: Progress) -> _Level:
    """Open a directory and hash everything in it that is no directory."""
    descriptor = os.open(name, localfiles.DIRECTORY, dir_fd=parent)
    try:
        entries: dict[Name, Node] = {}
        subdirectories: list[bytes] = []
        with os.scandir(descriptor) as found:
            for entry in found:
                child = os.fsencode(entry.name)
                if entry.is_dir(follow_symlinks=False):
                    subdirectories.append(child)
                else:
                    below = path + b"/" + child
                    entries[Name(child)] = _scan_leaf(descriptor, child, below, tree, progress)
    except BaseException:
        os.close(descriptor)
        raise
    return _Level(name, path, descriptor, subdirectories, entries)


def _scan_leaf(
    directory: int | None, name: bytes, path: bytes, tree: Tree, progress: Progress
) -> FileNode | SymlinkNode:
    """The node of a file or symlink."""
    try:
        descriptor = os.open(name, localfiles.FILE, dir_fd=directory)
    except OSError as error:
        if error.errno != localfiles.IS_SYMLINK:
            raise unreadable(path, error) from None
        return SymlinkNode(os.readlink(name, dir_fd=directory))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ImportPathError(
                f"{printable(path)} is neither a file, a directory nor a symlink; remove it or"
                " import something else"
            )
        digest, size = _hash(descriptor, status.st_size)
    except OSError as error:
        raise unreadable(path, error) from None
    finally:
        os.close(descriptor)
    tree.files.setdefault(digest, (path, size))
    progress.files_hashed += 1
    progress.bytes_hashed += size
    return FileNode(digest, size, bool(status.st_mode & stat.S_IXUSR))


def unreadable(path: bytes, error: OSError) -> ImportPathError:
    """The error for a file that cannot be read."""
    return ImportPathError(f"cannot read {printable(path)}: {error.strerror}")


def _hash(descriptor: int, size: int) -> tuple[Digest, int]:
    """Digest and length of what is in a file, which had `size` bytes a moment ago."""
    if size < _CHUNK:
        data = os.read(descriptor, size + 1)
        if len(data) == size:
            return Digest(blake3(data).digest()), size
        os.lseek(descriptor, 0, os.SEEK_SET)
    hasher, length = blake3(), 0
    buffer = memoryview(bytearray(_CHUNK))
    while count := os.readv(descriptor, [buffer]):
        hasher.update(buffer[:count])
        length += count
    return Digest(hasher.digest()), length

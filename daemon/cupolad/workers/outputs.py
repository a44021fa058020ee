"""Ingest: turns what a build left in its scratch directories into nodes of the store.

Runs in a process of its own (`serve`), which keeps the hashing off the daemon's event loop and a
crash of native code away from the daemon.  By the time it is asked, no process of the build lives.
Nothing is opened through a symlink, at any component, and nothing but regular files is opened.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

from cupola import wire
from cupola.directories import Directory
from cupola.errors import BuildError, CupolaError
from cupola.nodes import FileNode, Name, Node, SymlinkNode
from cupola.notation import printable
from cupolad.host import files
from cupolad.host.uids import UidRange
from cupolad.store import Batch, Store, StoreLimits
from cupolad.workers.channel import Channel
from cupolad.workers.refscan import Needles, Scanner

_KINDS: Final = {
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
}
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class _UnfitError(Exception):
    """The file at hand cannot be kept, for the reason given (a verb phrase)."""


@dataclass(slots=True)
class _Level:
    """A directory that is being walked."""

    name: bytes
    descriptor: int
    names: Iterator[bytes]
    current: bytes = b""
    """Which of `names` is being looked at; empty when all have been."""
    entries: dict[Name, Node] = field(default_factory=dict)


class OutputWalk:
    """Walks one build's outputs into `batch`. `owners`: whose files they have to be."""

    def __init__(self, batch: Batch, owners: UidRange, limits: StoreLimits) -> None:
        self._batch, self._owners, self._limits = batch, owners, limits
        self._hard_links: dict[tuple[int, int], tuple[FileNode, Scanner]] = {}
        """Device and inode → the node, and what was found in the contents."""

    def ingest(self, scratch: int, path: bytes, shown: str, scanner: Scanner) -> Node:
        """The node of what lies at relative `path` below the open directory `scratch`.

        `shown` is the output's name for errors: `output_missing` or `output_unsupported`.
        """
        parent_path, _, name = path.rpartition(b"/")
        try:
            parent = files.open_beneath(scratch, parent_path or b".", files.DIRECTORY)
        except OSError as error:
            raise _parent_error(error, shown) from None
        levels: list[_Level] = []
        try:
            return self._tree(_Level(b"", parent, iter([name])), levels, scanner)
        except _UnfitError as error:
            below = [printable(level.current) for level in levels[1:] if level.current]
            raise _unsupported("/".join([shown, *below]), str(error)) from None
        except FileNotFoundError:
            raise _missing(shown) from None
        finally:
            for level in levels:
                os.close(level.descriptor)

    def _tree(self, parent: _Level, levels: list[_Level], scanner: Scanner) -> Node:
        """The node of the one name in `parent`.

        Walks without recursion: `levels` holds the way from `parent` to what is being looked at,
        and keeps it when an exception ends the walk.
        """
        levels.append(parent)
        while True:
            level = levels[-1]
            level.current = name = next(level.names, b"")
            if not name:
                node: Node = self._finish(level)
                levels.pop()
                os.close(level.descriptor)
                name, level = level.name, levels[-1]
            elif (found := self._visit(level.descriptor, name, scanner)) is not None:
                node = found
            else:
                levels.append(self._enter(level.descriptor, name))
                if len(levels) > self._limits.depth + 1:
                    raise _UnfitError(f"is nested more than {self._limits.depth} directories deep")
                continue
            if level is parent:
                return node
            scanner.scan(name)
            level.entries[Name(name)] = node

    def _visit(self, directory: int, name: bytes, scanner: Scanner) -> Node | None:
        """The node of a file or symlink; None for a directory.

        A file with several names is read once, but what is found in it counts for each output.
        """
        status = os.lstat(name, dir_fd=directory)
        if known := self._hard_links.get((status.st_dev, status.st_ino)):
            node, found = known
            scanner.include(found)
            return node
        if status.st_uid not in self._owners:
            raise _UnfitError("belongs to nobody that the build could be")
        if stat.S_ISREG(status.st_mode):
            return self._file(directory, name, status, scanner)
        if stat.S_ISDIR(status.st_mode):
            return None
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(name, dir_fd=directory)
            scanner.scan(target)
            return SymlinkNode(target)
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "of an unknown kind")
        raise _UnfitError(f"is {kind}; only files, directories and symlinks can be kept")

    def _enter(self, directory: int, name: bytes) -> _Level:
        descriptor = files.open_beneath(directory, name, files.DIRECTORY)
        most = self._limits.entries
        with os.scandir(descriptor) as entries:
            names = [os.fsencode(entry.name) for entry in islice(entries, most + 1)]
        if len(names) > most:
            os.close(descriptor)
            raise _UnfitError(f"holds a directory of more than {most} entries")
        return _Level(name, descriptor, iter(names))

    def _finish(self, level: _Level) -> Node:
        directory = Directory(level.entries)
        try:
            return self._batch.put_directory(directory.encoding)
        except ValueError as error:
            raise _UnfitError(f"cannot be kept: {error}") from None

    def _file(
        self, directory: int, name: bytes, status: os.stat_result, scanner: Scanner
    ) -> FileNode:
        if status.st_size > self._limits.blob_bytes:
            raise _UnfitError(f"has more than {self._limits.blob_bytes} bytes")
        linked = status.st_nlink > 1
        contents = scanner.another() if linked else scanner
        with (
            files.opened(os.open(name, _FILE, dir_fd=directory)) as descriptor,
            contents.stream() as observe,
        ):
            digest, size = self._batch.take(directory, name, descriptor, observe)
        node = FileNode(digest, size, bool(status.st_mode & stat.S_IXUSR))
        if linked:
            self._hard_links[(status.st_dev, status.st_ino)] = node, contents
            scanner.include(contents)
        return node


def _missing(shown: str) -> BuildError:
    return BuildError(
        "output_missing", f"the build ended well but did not make its output {shown}", path=shown
    )


def _unsupported(shown: str, why: str) -> BuildError:
    return BuildError("output_unsupported", f"the output {shown} {why}", path=shown)


def _parent_error(error: OSError, shown: str) -> Exception:
    if error.errno == errno.ENOENT:
        return _missing(shown)
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EXDEV):
        return _unsupported(shown, "lies behind a symlink, which is never followed")
    return error


def ingest(store: Store, job: dict[str, Any]) -> list[dict[str, Any]]:
    """Ingest the outputs of `job`, all or none.

    `job`: `outputs`, each with `scratch` (a trusted absolute path), `path` (below it) and `shown`;
    `needles`; `owner`, the first id of the build's range; `token`, which names its arrivals.
    """
    needles = Needles(job["needles"])
    results = []
    with store.batch(job["token"]) as batch:
        walk = OutputWalk(batch, UidRange(job["owner"]), store.limits)
        for output in job["outputs"]:
            scanner = Scanner(needles)
            with files.opened(files.open_directory(output["scratch"])) as scratch:
                node = walk.ingest(scratch, output["path"], output["shown"], scanner)
            results.append({"node": wire.encode_node(node), "needles": scanner.found()})
        batch.commit()
    return results


def serve(connection: socket.socket) -> None:
    """The process: opens a store, then answers each job until the connection ends."""
    channel = Channel(connection)
    setup = channel.receive()
    if setup is None:
        return
    store = Store(Path(setup["state"]), StoreLimits(**setup["limits"]))
    while (job := channel.receive()) is not None:
        channel.send(_answer(store, job))


def _answer(store: Store, job: dict[str, Any]) -> dict[str, Any]:
    """The outputs of `job`, or the error in words."""
    try:
        return {"done": ingest(store, job)}
    except CupolaError as error:
        return {"error": {"code": error.code, "message": error.message, "details": error.details}}
    except OSError as error:
        return {"fault": {"errno": error.errno or 0, "text": error.strerror or ""}}
    except (ValueError, MemoryError) as error:
        return {"fault": {"errno": 0, "text": f"{type(error).__name__}: {error}"}}

"""The FUSE server of one build's inputs: read-only, straight from the store.

Runs in a process of its own (`serve`), on a /dev/fuse descriptor that the daemon has mounted.
Handlers are thin: look up, build attributes, translate errors.  Contents never change, so the
kernel may keep everything for ever.  Any fault that a build could notice is counted and told to
the daemon, which then fails the build whatever its exit code says.
"""

from __future__ import annotations

import errno
import functools
import math
import os
import socket
import stat
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar, cast

import pyfuse3
import trio
from pyfuse3 import (
    EntryAttributes,
    FileInfo,
    FUSEError,
    InodeT,
    ReaddirToken,
    RequestContext,
)

from cupola import wire
from cupola.nodes import DirectoryNode, FileNode, Name, SymlinkNode
from cupolad.store import Store
from cupolad.workers.channel import Channel
from cupolad.workers.inodes import Inode, InodeTable

_BLOCK: Final = 512
_MTIME_NS: Final = 1_000_000_000
"""One second past 1970, as in a Nix store: 0 confuses tools that take it for "no time"."""

_KEPT_FAULTS: Final = 8

P = ParamSpec("P")
T = TypeVar("T")


def _guarded(
    handler: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Turn every exception of a handler but FUSEError into EIO, and count it as a fault."""

    @functools.wraps(handler)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await handler(*args, **kwargs)
        except FUSEError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the mount has to live on
            cast(InputFiles, args[0]).fault(f"{handler.__name__}: {error!r}")
            raise FUSEError(errno.EIO) from None

    return guarded


class InputFiles(pyfuse3.Operations):
    """The inputs as a file system. Directories, files and symlinks belong to `owner`."""

    enable_writeback_cache = False

    def __init__(self, table: InodeTable, store: Store, owner: int) -> None:
        super().__init__()
        self._table, self._store, self._owner = table, store, owner
        self._files: dict[int, int] = {}
        """Open file descriptor → size."""
        self.fault_count = 0
        self.faults: list[str] = []

    def fault(self, text: str) -> None:
        """Count something that must not happen."""
        self.fault_count += 1
        if len(self.faults) < _KEPT_FAULTS:
            self.faults.append(text[:200])

    @_guarded
    async def lookup(
        self, parent_inode: InodeT, name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        """Look a name up; that it is absent may be remembered as well."""
        if name == b".":
            return self._told(self._table.get(parent_inode))
        inode = self._table.look_up(parent_inode, name)
        if inode is None:
            absent = EntryAttributes()
            absent.st_ino = 0
            absent.entry_timeout = math.inf
            return absent
        return self._told(inode)

    def _told(self, inode: Inode) -> EntryAttributes:
        self._table.remember(inode)
        return self._attributes(inode)

    @_guarded
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        """The attributes of an inode."""
        return self._attributes(self._table.get(inode))

    def _attributes(self, inode: Inode) -> EntryAttributes:
        attributes = EntryAttributes()
        attributes.st_ino = inode.number
        attributes.st_uid = attributes.st_gid = self._owner
        attributes.st_nlink = 1
        attributes.st_atime_ns = attributes.st_mtime_ns = attributes.st_ctime_ns = _MTIME_NS
        attributes.entry_timeout = attributes.attr_timeout = math.inf
        match inode.node:
            case FileNode(_, size, executable):
                attributes.st_mode = stat.S_IFREG | (0o555 if executable else 0o444)
                attributes.st_size = size
                attributes.st_blocks = -(-size // _BLOCK)
            case SymlinkNode(target):
                attributes.st_mode = stat.S_IFLNK | 0o777
                attributes.st_size = len(target)
            case DirectoryNode() | None:
                attributes.st_mode = stat.S_IFDIR | 0o555
        attributes.st_blksize = 128 * 1024
        return attributes

    @_guarded
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> bytes:
        """The target of a symlink."""
        node = self._table.get(inode).node
        if not isinstance(node, SymlinkNode):
            raise FUSEError(errno.EINVAL)
        return node.target

    @_guarded
    async def open(self, inode: InodeT, flags: int, ctx: RequestContext) -> FileInfo:
        """Open a file; what the kernel has cached of it stays good."""
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise FUSEError(errno.EROFS)
        node = self._table.get(inode).node
        if not isinstance(node, FileNode):
            raise FUSEError(errno.EISDIR)
        descriptor = self._store.open_blob(node.digest)
        if os.fstat(descriptor).st_size != node.size:
            os.close(descriptor)
            raise ValueError(f"blob {node.digest.hex()} has not its {node.size} bytes")
        self._files[descriptor] = node.size
        return FileInfo(fh=cast(Any, descriptor), keep_cache=True)

    @_guarded
    async def read(self, fh: Any, off: int, size: int) -> bytes:
        """The bytes at an offset; without a thread if the page cache holds them.

        A file system that cannot tell, such as tmpfs, says EOPNOTSUPP.
        """
        wanted = max(0, min(size, self._files[fh] - off))
        data = bytearray(wanted)
        try:
            count = os.preadv(fh, [data], off, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EOPNOTSUPP):
                raise
            count = 0
        if count < wanted:
            count = await trio.to_thread.run_sync(os.preadv, fh, [data], off)
            if count < wanted:
                raise ValueError("a blob is shorter than it was when it was opened")
        return bytes(data)

    async def flush(self, fh: Any) -> None:
        """Nothing is ever written; ENOSYS keeps the kernel from asking again."""
        raise FUSEError(errno.ENOSYS)

    async def release(self, fh: Any) -> None:
        """Close a file."""
        del self._files[fh]
        os.close(fh)

    @_guarded
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> Any:
        """Open a directory. Nothing is kept for it, since no directory ever changes."""
        self._table.children(inode)
        return inode

    @_guarded
    async def readdir(self, fh: Any, start_id: int, token: ReaddirToken) -> None:
        """Entries from number `start_id` on, as many as fit, each with its attributes."""
        listing = self._table.children(fh)
        for index in range(start_id, len(listing)):
            name, node = listing[index]
            inode = self._table.inode_of(fh, name, node)
            if not pyfuse3.readdir_reply(token, name, self._attributes(inode), index + 1):
                return
            self._table.remember(inode)

    async def releasedir(self, fh: Any) -> None:
        """Close a directory."""

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """Drop inodes that the kernel has dropped."""
        for number, lookups in inode_list:
            self._table.forget(number, lookups)

    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        """A full file system without free space."""
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = 4096
        data.f_namemax = 255
        return data

    async def getxattr(self, inode: InodeT, name: bytes, ctx: RequestContext) -> bytes:
        """There are none; ENOSYS keeps the kernel from asking again."""
        raise FUSEError(errno.ENOSYS)

    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[bytes]:
        """There are none; ENOSYS keeps the kernel from asking again."""
        raise FUSEError(errno.ENOSYS)


def serve(connection: socket.socket) -> None:
    """The process: takes a mounted /dev/fuse descriptor and the inputs, serves until told to end.

    On `connection` come the descriptor, then `{"state", "owner", "inputs"}`; each further frame is
    answered with a report of what happened so far.  The end of the connection ends the process.
    """
    channel = Channel(connection)
    device = channel.receive_descriptor()
    job = channel.receive()
    if device is None or job is None:
        return
    store = Store(Path(job["state"]))
    inputs = {Name(entry["name"]): wire.decode_node(entry["node"]) for entry in job["inputs"]}
    server = InputFiles(InodeTable(inputs, store.directory), store, job["owner"])
    pyfuse3.init(server, f"/dev/fd/{device}", set())
    trio.run(_serve_until_closed, channel, server)


async def _serve_until_closed(channel: Channel, server: InputFiles) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pyfuse3.main)
        while True:
            await trio.lowlevel.wait_readable(channel.connection)
            if channel.receive() is None:
                # The daemon has unmounted, or is gone; closing the device is all that is left.
                os._exit(0)
            channel.send(
                {
                    "fault_count": server.fault_count,
                    "faults": server.faults,
                }
            )

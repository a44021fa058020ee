"""Inode numbers and attributes of an input mount; nothing of FUSE itself.

Nothing is walked before it is looked up: memory grows with what the kernel remembers, not with
the size of the closure.  Numbers follow from content (files, symlinks) or from the way down to it
(directories, which the kernel wants in one place only), so they are the same in each build and
after the kernel has forgotten them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

from blake3 import blake3

from cupola.directories import Directory
from cupola.nodes import Digest, DirectoryNode, FileNode, Name, Node, SymlinkNode

ROOT: Final = 1
"""The number of the mount's root, fixed by FUSE."""

_CACHED_ENTRIES: Final = 65_536

_Identity: TypeAlias = tuple[object, ...]


@dataclass(slots=True)
class Inode:
    """What a number stands for. `lookups` counts how often the kernel was told of it."""

    number: int
    node: Node | None
    """None for the root."""
    identity: _Identity
    lookups: int = 0


class _Cached:
    """A directory, and its entries by number once they were listed."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory

    @cached_property
    def entries(self) -> tuple[tuple[bytes, Node], ...]:
        """Name and node of each entry."""
        return tuple(self.directory.items())


class InodeTable:
    """The inodes that the kernel knows of, below a root that holds `inputs`."""

    def __init__(
        self, inputs: Mapping[Name, Node], read_directory: Callable[[Digest], Directory]
    ) -> None:
        self._inputs = dict(inputs)
        self._input_list = tuple(self._inputs.items())
        self._read_directory = read_directory
        self._inodes: dict[int, Inode] = {ROOT: Inode(ROOT, None, ("root",), lookups=1)}
        self._directories: OrderedDict[Digest, _Cached] = OrderedDict()
        self._cached_entries = 0

    def __len__(self) -> int:
        return len(self._inodes)

    def get(self, number: int) -> Inode:
        """The inode `number`; KeyError if the kernel should not know it."""
        return self._inodes[number]

    def look_up(self, parent: int, name: bytes) -> Inode | None:
        """The inode called `name` in directory `parent`; it must be `remember`ed if it is told."""
        node = self._child(self._inodes[parent], name)
        return None if node is None else self.inode_of(parent, name, node)

    def children(self, parent: int) -> Sequence[tuple[bytes, Node]]:
        """Name and node of each entry of directory `parent`, always in the same order."""
        node = self._inodes[parent].node
        if node is None:
            return self._input_list
        if not isinstance(node, DirectoryNode):
            raise NotADirectoryError(parent)
        return self._directory(node.digest).entries

    def inode_of(self, parent: int, name: bytes, node: Node) -> Inode:
        """The inode for `node`, found as `name` in directory `parent`."""
        identity, number = _identify(parent, name, node)
        while True:
            known = self._inodes.get(number)
            if known is None:
                return Inode(number, node, identity)
            if known.identity == identity:
                return known
            number = ROOT + 1 + number % (2**63 - 1)  # taken by something else: try the next

    def remember(self, inode: Inode) -> None:
        """Note that the kernel was told of `inode` once more."""
        inode.lookups += 1
        self._inodes[inode.number] = inode

    def forget(self, number: int, lookups: int) -> None:
        """Note that the kernel has dropped so many of what it was told."""
        inode = self._inodes.get(number)
        if inode is not None and number != ROOT:
            inode.lookups -= lookups
            if inode.lookups <= 0:
                del self._inodes[number]

    def _child(self, parent: Inode, name: bytes) -> Node | None:
        if parent.node is None:
            return self._inputs.get(name)  # type: ignore[call-overload, no-any-return]
        if not isinstance(parent.node, DirectoryNode):
            raise NotADirectoryError(parent.number)
        return self._directory(parent.node.digest).directory.get(name)

    def _directory(self, digest: Digest) -> _Cached:
        known = self._directories.get(digest)
        if known is not None:
            self._directories.move_to_end(digest)
            return known
        cached = self._directories[digest] = _Cached(self._read_directory(digest))
        self._cached_entries += len(cached.directory)
        while self._cached_entries > _CACHED_ENTRIES and len(self._directories) > 1:
            _, dropped = self._directories.popitem(last=False)
            self._cached_entries -= len(dropped.directory)
        return cached


def _identify(parent: int, name: bytes, node: Node) -> tuple[_Identity, int]:
    """What makes an inode the same one, and the number that it would like to have."""
    match node:
        case FileNode(digest, _, executable):
            return ("file", digest, executable), _number(digest, int(executable))
        case SymlinkNode(target):
            return ("symlink", target), _number(blake3(target).digest(), 0)
        case DirectoryNode():
            place = parent.to_bytes(8, "little") + name
            return ("directory", parent, name), _number(blake3(place).digest(), 0)


def _number(digest: bytes, flag: int) -> int:
    """A number above the root's from the first eight bytes of a digest."""
    number = (int.from_bytes(digest[:8], "little") >> 1) ^ flag
    return number if number > ROOT else ROOT + 1

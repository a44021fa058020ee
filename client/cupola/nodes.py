"""Digests, names and nodes of the content-addressed store (snix castore v1).

A node says what something is by content alone; it has no name.  Names stand in the `Directory`
that holds the node (`directories.py`).  Each type checks itself when it is made, so code that
holds one never checks again.  Nothing here reads or writes anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, TypeAlias

from blake3 import blake3

DIGEST_LENGTH = 32
"""Bytes in a BLAKE3 digest."""

MAX_NAME_LENGTH = 255
"""Bytes in the longest name (NAME_MAX of Linux, and castore's own limit)."""

MAX_TARGET_LENGTH = 4095
"""Bytes in the longest symlink target (PATH_MAX of Linux without its NUL)."""

MAX_SIZE = 2**64 - 1
"""The largest size that castore's uint64 can say."""


class Digest(bytes):
    """A BLAKE3 digest: 32 bytes."""

    __slots__ = ()

    def __new__(cls, value: bytes) -> Self:  # noqa: D102
        if len(value) != DIGEST_LENGTH:
            raise ValueError(f"a digest has {DIGEST_LENGTH} bytes, not {len(value)}")
        return super().__new__(cls, value)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Self:
        """The digest of `data`."""
        return cls(blake3(data).digest())

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """The digest that 64 lower-case hexadecimal digits spell."""
        if len(text) != 2 * DIGEST_LENGTH or not set(text) <= set("0123456789abcdef"):
            raise ValueError(f"a digest is written as {2 * DIGEST_LENGTH} lower-case hex digits")
        return cls(bytes.fromhex(text))

    def __repr__(self) -> str:
        return f"Digest({self.hex()})"

    __str__ = __repr__


class Name(bytes):
    """The name of an entry in a directory: 1..255 bytes, no `/`, no NUL, neither `.` nor `..`."""

    __slots__ = ()

    def __new__(cls, value: bytes) -> Self:  # noqa: D102
        if not 1 <= len(value) <= MAX_NAME_LENGTH:
            raise ValueError(f"a name has 1 to {MAX_NAME_LENGTH} bytes, not {len(value)}")
        if b"/" in value or b"\0" in value:
            raise ValueError("a name holds neither '/' nor NUL")
        if value in (b".", b".."):
            raise ValueError("a name is neither '.' nor '..'")
        return super().__new__(cls, value)


def _check_size(size: int) -> None:
    if not 0 <= size <= MAX_SIZE:
        raise ValueError("a size lies between 0 and 2^64-1")


@dataclass(frozen=True, slots=True)
class FileNode:
    """A regular file: the digest of its bytes, how many they are, and whether it may be executed."""

    digest: Digest
    size: int
    executable: bool = False

    def __post_init__(self) -> None:
        _check_size(self.size)


@dataclass(frozen=True, slots=True)
class DirectoryNode:
    """A directory: the digest of its canonical encoding and `Directory.size` of its contents."""

    digest: Digest
    size: int

    def __post_init__(self) -> None:
        _check_size(self.size)


@dataclass(frozen=True, slots=True)
class SymlinkNode:
    """A symbolic link; the target is any 1..4095 bytes without NUL and need not exist."""

    target: bytes

    def __post_init__(self) -> None:
        if not 1 <= len(self.target) <= MAX_TARGET_LENGTH:
            raise ValueError(f"a symlink target has 1 to {MAX_TARGET_LENGTH} bytes")
        if b"\0" in self.target:
            raise ValueError("a symlink target holds no NUL")


Node: TypeAlias = FileNode | DirectoryNode | SymlinkNode

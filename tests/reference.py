"""An independent computation of castore digests, to compare cupola's with.

Written against castore.proto alone, sharing no code with cupola: protobuf is encoded by hand, and
recursion does what cupola's iterative walks do.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from blake3 import blake3

Entry = tuple[str, bytes, int, bool] | tuple[str, bytes]


def _varint(number: int) -> bytes:
    out = bytearray()
    while True:
        low, number = number & 0x7F, number >> 7
        if number:
            out.append(low | 0x80)
        else:
            out.append(low)
            return bytes(out)


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value) if value else b""


def encode(
    directories: dict[bytes, tuple[bytes, int]],
    files: dict[bytes, tuple[bytes, int, bool]],
    symlinks: dict[bytes, bytes],
) -> bytes:
    """The canonical encoding of a directory with these entries."""
    out = b""
    for name, (digest, size) in sorted(directories.items()):
        out += _field(1, _field(1, name) + _field(2, digest) + _number(3, size))
    for name, (digest, size, executable) in sorted(files.items()):
        out += _field(
            2, _field(1, name) + _field(2, digest) + _number(3, size) + _number(4, executable)
        )
    for name, target in sorted(symlinks.items()):
        out += _field(3, _field(1, name) + _field(2, target))
    return out


def text_of(path: Path | str | bytes) -> str:
    """The text form of the node that `path` is."""
    path = os.fsencode(path)
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return "l:" + os.fsdecode(os.readlink(path))
    if stat.S_ISREG(status.st_mode):
        kind = "x" if status.st_mode & 0o100 else "f"
        with open(path, "rb") as file:
            data = file.read()
        return f"{kind}:{blake3(data).hexdigest()}:{len(data)}"
    digest, size = directory_of(path)
    return f"d:{digest.hex()}:{size}"


def directory_of(path: bytes) -> tuple[bytes, int]:
    """Digest and size of the directory at `path`."""
    directories, files, symlinks = {}, {}, {}
    for name in os.listdir(path):
        below = path + b"/" + name
        status = os.lstat(below)
        if stat.S_ISDIR(status.st_mode):
            directories[name] = directory_of(below)
        elif stat.S_ISLNK(status.st_mode):
            symlinks[name] = os.readlink(below)
        else:
            with open(below, "rb") as file:
                data = file.read()
            files[name] = (blake3(data).digest(), len(data), bool(status.st_mode & 0o100))
    size = len(directories) + len(files) + len(symlinks) + sum(s for _, s in directories.values())
    return blake3(encode(directories, files, symlinks)).digest(), size

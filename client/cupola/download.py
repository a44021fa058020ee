"""Downloading: directories and blobs by digest, verified as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final

from blake3 import blake3

from cupola.connection import Connection
from cupola.directories import Directory
from cupola.errors import infrastructure
from cupola.messages import BlobData, DirectoryData, End, GetBlobs, GetDirectories
from cupola.nodes import Digest, DirectoryNode, FileNode, Node

_BATCH: Final = 2000


async def directories(connection: Connection, root: Node) -> dict[Digest, Directory]:
    """Every directory at or below `root`, by digest."""
    found: dict[Digest, Directory] = {}
    frontier = [root.digest] if isinstance(root, DirectoryNode) else []
    while frontier:
        below: dict[Digest, None] = {}
        for start in range(0, len(frontier), _BATCH):
            for got in await _get(connection, frontier[start : start + _BATCH]):
                found[got.digest] = got
                for node in got.nodes():
                    if isinstance(node, DirectoryNode):
                        below[node.digest] = None
        frontier = [digest for digest in below if digest not in found]
    return found


async def directory(connection: Connection, node: DirectoryNode) -> Directory:
    """The directory that `node` stands for."""
    (found,) = await _get(connection, [node.digest])
    return found


async def _get(connection: Connection, digests: Sequence[Digest]) -> list[Directory]:
    await connection.send(GetDirectories(tuple(digests)))
    got: list[Directory] = []
    while True:
        match await connection.receive():
            case DirectoryData(encodings):
                for encoding in encodings:
                    try:
                        got.append(Directory.decode(encoding))
                    except ValueError as error:
                        raise _broken(str(error)) from None
            case End():
                break
            case other:
                raise _broken(f"unexpected {type(other).__name__}")
    if [each.digest for each in got] != list(digests):
        raise _broken("it sent other directories than were asked for")
    return got


async def blobs(
    connection: Connection, files: Iterable[FileNode]
) -> AsyncIterator[tuple[tuple[int, bytes], ...]]:
    """The contents of `files` in order, as groups of pieces: index and next bytes.

    Each file gives at least one, maybe empty, piece.  Contents that do not match their node are an
    error, raised after their last piece was given.
    """
    nodes = list(files)
    await connection.send(GetBlobs(tuple(node.digest for node in nodes)))
    current, hasher, size = -1, blake3(), 0
    while not isinstance(message := await connection.receive(), End):
        if not isinstance(message, BlobData):
            raise _broken(f"unexpected {type(message).__name__}")
        for index, data in message.parts:
            if index != current:
                _check(nodes, current, hasher.digest(), size)
                if index != current + 1 or index >= len(nodes):
                    raise _broken("it sent blobs out of order")
                current, hasher, size = index, blake3(), 0
            hasher.update(data)
            size += len(data)
        yield message.parts
    _check(nodes, current, hasher.digest(), size)
    if current != len(nodes) - 1:
        raise _broken("it sent fewer blobs than were asked for")


def _check(nodes: Sequence[FileNode], index: int, digest: bytes, size: int) -> None:
    if index >= 0 and (digest != nodes[index].digest or size != nodes[index].size):
        raise infrastructure(
            f"the daemon sent damaged contents for {nodes[index].digest.hex()};"
            " tell the administrator",
            retryable=False,
        )


def _broken(why: str) -> Exception:
    return infrastructure(f"the daemon broke the protocol: {why}", retryable=False)

"""The client for programs without trio: the same methods, blocking.

    with cupola.sync.connect() as client:
        node = client.import_path("src")

A thread of its own runs the asynchronous client, so this works beside any other event loop.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import trio

from cupola.client import Client as AsyncClient
from cupola.client import OnRetry, OnState
from cupola.connection import socket_path
from cupola.directories import Directory
from cupola.messages import BuildRequest, BuildResult, Log, StatusReport
from cupola.nodes import DirectoryNode, FileNode, Node
from cupola.progress import Progress

T = TypeVar("T")


class Client:
    """Blocking twin of `cupola.Client`; see there for what the methods do."""

    def __init__(self, client: AsyncClient, token: trio.lowlevel.TrioToken) -> None:
        self._client, self._token = client, token

    def _run(self, work: Callable[..., Awaitable[T]], *args: Any) -> T:
        return trio.from_thread.run(work, *args, trio_token=self._token)

    def import_path(
        self, path: str | os.PathLike[str], *, progress: Progress | None = None
    ) -> Node:
        """Store the file, symlink or directory at `path`; its node."""
        return self._run(lambda: self._client.import_path(path, progress=progress))

    def has(self, node: Node) -> bool:
        """Whether the daemon has `node` with all below it."""
        return self._run(self._client.has, node)

    def build(
        self,
        request: BuildRequest,
        *,
        on_log: Callable[[Log], None] | None = None,
        on_state: OnState | None = None,
        on_retry: OnRetry | None = None,
    ) -> BuildResult:
        """Run a build and wait for it. The callbacks are called in another thread."""
        return self._run(
            lambda: self._client.build(request, on_log=on_log, on_state=on_state, on_retry=on_retry)
        )

    def directory(self, node: DirectoryNode) -> Directory:
        """The entries of a directory."""
        return self._run(self._client.directory, node)

    def export(
        self, node: Node, destination: str | os.PathLike[str], *, progress: Progress | None = None
    ) -> None:
        """Write `node` to `destination`, which must not exist."""
        self._run(lambda: self._client.export(node, destination, progress=progress))

    @contextmanager
    def open_blob(self, node: FileNode) -> Iterator[io.BufferedReader]:
        """The contents of a file, as a binary file to read."""
        opened = self._client.open_blob(node)
        pieces = self._run(opened.__aenter__)
        try:
            yield io.BufferedReader(_Blob(self, pieces))
        finally:
            self._run(opened.__aexit__, None, None, None)

    def status(self) -> StatusReport:
        """How the daemon is doing, and which builds of yours it has."""
        return self._run(self._client.status)


class _Blob(io.RawIOBase):
    """Pieces that come asynchronously, as a file."""

    def __init__(self, client: Client, pieces: AsyncIterator[bytes]) -> None:
        super().__init__()
        self._client, self._pieces, self._rest = client, pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = self._client._run(self._next)
            if piece is None:
                return 0
            self._rest = piece
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    async def _next(self) -> bytes | None:
        return await anext(self._pieces, None)


@contextmanager
def connect(socket: str | os.PathLike[str] | None = None) -> Iterator[Client]:
    """A client of the daemon at `socket`, by default CUPOLA_SOCKET or the system's."""
    loop = _Loop(socket_path(socket))
    loop.start()
    try:
        yield Client(loop.client, loop.token)
    finally:
        loop.stop()


class _Loop:
    """A thread that runs trio with one client, until it is stopped."""

    def __init__(self, path: Path) -> None:
        self.client = AsyncClient(path)
        self._thread = threading.Thread(target=self._run, name="cupola", daemon=True)
        self._up = threading.Event()

    def _run(self) -> None:
        trio.run(self._main)

    async def _main(self) -> None:
        self.token = trio.lowlevel.current_trio_token()
        self._stopping = trio.Event()
        self._up.set()
        await self._stopping.wait()
        await self.client.close()

    def start(self) -> None:
        """Start, and make sure that the daemon answers."""
        self._thread.start()
        self._up.wait()
        try:
            trio.from_thread.run(self.client.limits, trio_token=self.token)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Cancel what runs, and end the thread."""
        trio.from_thread.run_sync(self._stopping.set, trio_token=self.token)
        self._thread.join()

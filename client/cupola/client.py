"""The client of the daemon, for programs that use trio; `cupola.sync` is its blocking twin."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

import trio

from cupola import download, exporter, importer
from cupola.connection import Connection, socket_path
from cupola.directories import Directory
from cupola.errors import DaemonUnavailableError, HostError, infrastructure
from cupola.messages import (
    Absent,
    Build,
    BuildRequest,
    BuildResult,
    Log,
    Missing,
    Queued,
    Started,
    Status,
    StatusReport,
)
from cupola.nodes import DirectoryNode, FileNode, Node, SymlinkNode
from cupola.progress import Progress
from cupola.upload import upload

T = TypeVar("T")

OnLog: TypeAlias = Callable[[Log], Awaitable[None] | None]
OnState: TypeAlias = Callable[[Queued | Started], None]
OnRetry: TypeAlias = Callable[[HostError], None]

ATTEMPTS: Final = 20
"""How often something is asked for while daemons end before they answer."""
_RETRY_SECONDS: Final = 0.1
"""Before the second attempt; before each further one the double, up to a limit."""
_MAX_RETRY_SECONDS: Final = 2.0


class Client:
    """A client of one daemon. Its methods may run side by side: each has its own connection.

    Cancelling a method cancels what the daemon does for it.  Errors are those of `cupola.errors`.
    When the daemon is restarted, builds and imports are asked for again, of the next one.
    """

    def __init__(self, path: Path, attempts: int = ATTEMPTS) -> None:
        self._path, self._attempts = path, attempts
        self._idle: list[Connection] = []

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """A connection for one request; it is used again if the request ended properly."""
        connection = await self._take()
        try:
            yield connection
        except BaseException:
            await connection.close()
            raise
        self._idle.append(connection)

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open():
                return connection
            await connection.close()
        return await Connection.open(self._path)

    async def _persistently(
        self, work: Callable[[Connection], Awaitable[T]], on_retry: OnRetry | None = None
    ) -> T:
        """What `work` returns; it is done again if the daemon ends before it has answered."""
        delay, gone = _RETRY_SECONDS, None
        for attempts_left in reversed(range(self._attempts)):
            try:
                async with self._connection() as connection:
                    return await work(connection)
            except DaemonUnavailableError as error:
                # That the last one ended tells more than that there is no next one.
                raise gone or error from None
            except HostError as error:
                if not error.details.get("disconnected") or not attempts_left:
                    raise
                gone = error
                if on_retry is not None:
                    on_retry(error)
            await trio.sleep(delay)
            delay = min(2 * delay, _MAX_RETRY_SECONDS)
        raise AssertionError("the last attempt returns or raises")

    async def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            await self._idle.pop().close()

    async def limits(self) -> Mapping[str, int]:
        """The daemon's limits, by name."""

        async def limits(connection: Connection) -> Mapping[str, int]:
            return connection.limits

        return await self._persistently(limits)

    async def import_path(
        self, path: str | os.PathLike[str], *, progress: Progress | None = None
    ) -> Node:
        """Store the file, symlink or directory at `path`; its node.

        Symlinks are stored, not followed.  Only what the daemon lacks is sent.
        """
        progress = progress or Progress()
        tree = await trio.to_thread.run_sync(importer.scan, path, progress, abandon_on_cancel=True)
        if not isinstance(tree.root, SymlinkNode):
            await self._persistently(lambda connection: upload(connection, tree, progress))
        return tree.root

    async def has(self, node: Node) -> bool:
        """Whether the daemon has `node` with all below it."""
        if isinstance(node, SymlinkNode):
            return True
        question = (
            Missing(blobs=(node.digest,))
            if isinstance(node, FileNode)
            else Missing(directories=(node.digest,))
        )
        absent = await self._persistently(lambda connection: connection.ask(question, Absent))
        return not absent.blobs and not absent.directories

    async def build(
        self,
        request: BuildRequest,
        *,
        on_log: OnLog | None = None,
        on_state: OnState | None = None,
        on_retry: OnRetry | None = None,
    ) -> BuildResult:
        """Run a build and wait for it.

        `on_log` gets what it writes as it comes; while it runs (it may be async) nothing more is
        taken from the daemon.  `on_state` is told when the build waits and when it starts,
        `on_retry` when the daemon has ended and the next one is asked for the same build.
        """

        async def ask(connection: Connection) -> BuildResult:
            await connection.send(Build(request))
            while True:
                match await connection.receive():
                    case BuildResult() as result:
                        return result
                    case Log() as log:
                        if on_log is not None and (waiting := on_log(log)) is not None:
                            await waiting
                    case (Queued() | Started()) as state:
                        if on_state is not None:
                            on_state(state)
                    case other:
                        raise infrastructure(
                            f"the daemon broke the protocol: unexpected {type(other).__name__}",
                            retryable=False,
                        )

        return await self._persistently(ask, on_retry)

    async def directory(self, node: DirectoryNode) -> Directory:
        """The entries of a directory."""
        return await self._persistently(lambda connection: download.directory(connection, node))

    async def export(
        self, node: Node, destination: str | os.PathLike[str], *, progress: Progress | None = None
    ) -> None:
        """Write `node` to `destination`, which must not exist; nothing else is written."""
        async with self._connection() as connection:
            await exporter.export(connection, node, Path(destination), progress or Progress())

    @asynccontextmanager
    async def open_blob(self, node: FileNode) -> AsyncIterator[AsyncIterator[bytes]]:
        """The contents of a file, in pieces, verified when the last one was taken."""
        connection = await self._take()
        try:
            yield (
                data async for pieces in download.blobs(connection, [node]) for _, data in pieces
            )
        finally:
            await connection.close()

    async def status(self) -> StatusReport:
        """How the daemon is doing, and which builds of yours it has."""
        return await self._persistently(lambda connection: connection.ask(Status(), StatusReport))


@asynccontextmanager
async def connect(
    socket: str | os.PathLike[str] | None = None, *, attempts: int = ATTEMPTS
) -> AsyncIterator[Client]:
    """A client of the daemon at `socket`, by default CUPOLA_SOCKET or the system's.

    `no_daemon` if it does not answer.  `attempts`: how often it asks, while daemons end before
    they have answered.
    """
    client = Client(socket_path(socket), attempts)
    await client.limits()
    try:
        yield client
    finally:
        await client.close()

"""One connection to the daemon: handshake, then messages both ways."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self, TypeVar

import trio

from cupola import errors, framing, wire
from cupola.errors import CupolaError, DaemonUnavailableError, disconnected, infrastructure
from cupola.framing import FrameError, FrameReader
from cupola.messages import Failure, Hello, Reply, Request, Welcome
from cupola.shapes import ShapeError
from cupola.version import __version__

R = TypeVar("R")

VERSIONS: Final = (1,)
"""Protocol versions that this library speaks."""

_CONNECT_SECONDS: Final = 30
_RETRY_SECONDS: Final = 0.01

DEFAULT_SOCKET: Final = Path("/run/cupola/cupola.sock")


def socket_path(path: str | os.PathLike[str] | None) -> Path:
    """The daemon's socket: `path`, else the variable CUPOLA_SOCKET, else the system's."""
    return Path(path or os.environ.get("CUPOLA_SOCKET") or DEFAULT_SOCKET)


class Connection:
    """A connection after its handshake. It serves one request at a time."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._reader = FrameReader(stream.socket)
        self.limits: Mapping[str, int] = {}

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Connect and shake hands; `no_daemon` if nobody answers."""
        try:
            connection = cls(await _connect(path))
        except (OSError, ValueError) as error:
            raise DaemonUnavailableError("no_daemon", _why_not(path, error)) from None
        try:
            await connection.send(Hello(VERSIONS, f"cupola {__version__}"))
            connection.limits = (await connection.expect(Welcome)).limits
        except BaseException:
            await trio.aclose_forcefully(connection._stream)
            raise
        return connection

    async def send(self, message: Request) -> None:
        """Send a request; if the daemon has given up on us, its error says why."""
        try:
            await self._stream.send_all(framing.encode_frame(wire.encode(message)))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await self.receive()  # the daemon's last words, if there were any
            raise _lost() from None

    async def receive(self) -> Reply:
        """The next reply; the typed error if it is one."""
        try:
            body = await self._reader.read()
            if body is None:
                raise _lost()
            reply = wire.decode_reply(framing.decode_item(body))
        except (OSError, trio.ClosedResourceError):
            raise _lost() from None
        except (FrameError, ShapeError) as error:
            raise infrastructure(
                f"the daemon broke the protocol: {error}", retryable=False
            ) from None
        if isinstance(reply, Failure):
            raise _error(reply)
        return reply

    async def expect(self, kind: type[R]) -> R:
        """The next reply, which has to be a `kind`."""
        reply = await self.receive()
        if not isinstance(reply, kind):
            raise infrastructure(
                f"the daemon broke the protocol: unexpected {type(reply).__name__}", retryable=False
            )
        return reply

    async def ask(self, request: Request, kind: type[R]) -> R:
        """Send a request that has one reply."""
        await self.send(request)
        return await self.expect(kind)

    def is_open(self) -> bool:
        """Whether the daemon has neither closed the connection nor said anything unasked."""
        return not self._stream.socket.is_readable()

    async def close(self) -> None:
        """Close; what the daemon does for this connection is cancelled."""
        await trio.aclose_forcefully(self._stream)


async def _connect(path: Path) -> trio.SocketStream:
    """Connect, as soon as the daemon has room for one more that waits.

    A Unix socket has no "in progress": either it is connected at once, or the queue is full.
    """
    deadline = trio.current_time() + _CONNECT_SECONDS
    while True:
        attempt = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        attempt.setblocking(False)  # noqa: FBT003
        try:
            attempt.connect(str(path))
        except BlockingIOError:
            attempt.close()
            if trio.current_time() > deadline:
                raise
            await trio.sleep(_RETRY_SECONDS)
        except BaseException:
            attempt.close()
            raise
        else:
            return trio.SocketStream(trio.socket.from_stdlib_socket(attempt))


def _error(failure: Failure) -> CupolaError:
    try:
        return errors.from_code(failure.code, failure.message, failure.details)
    except (ValueError, TypeError):
        return infrastructure(
            f"the daemon answered with an error unknown here: {failure.code}: {failure.message}",
            retryable=False,
        )


def _lost() -> CupolaError:
    return disconnected("the daemon closed the connection; try again")


def _why_not(path: Path, error: Exception) -> str:
    match error:
        case FileNotFoundError():
            return f"no daemon at {path}: start it with `systemctl start cupolad.socket`"
        case ConnectionRefusedError():
            return f"no daemon listens at {path}: see `systemctl status cupolad`"
        case PermissionError():
            return (
                f"you may not use {path}: ask the administrator to add you to its group"
                " (usually `cupola`), then log in again"
            )
        case _:
            return f"cannot connect to {path}: {error}"

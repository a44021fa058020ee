"""Starting and ending helper processes from the daemon.

A helper lives as long as its connection to the daemon.  What it does is not known here: it is
named by its role, "module:function", and the daemon itself never imports that module.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Final, Self

import trio

from cupola import framing
from cupola.errors import infrastructure
from cupolad.workers import forkserver

MAX_FRAME: Final = 64 * 1024 * 1024
_EXIT_SECONDS: Final = 5


class ForkServer:
    """The fork server with `roles` loaded, started when it is first needed, and again if it died.

    Use it as a context manager: at the end it is gone, and all helpers with it.
    """

    def __init__(self, roles: Sequence[str]) -> None:
        self._roles = roles
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._limiter = trio.CapacityLimiter(1)

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-I", "-m", forkserver.__name__,
                    str(theirs.fileno()), *self._roles,
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd="/",
            )  # fmt: skip
        self._control = ours

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            try:
                self._process.wait(_EXIT_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    async def fork(self, role: str) -> Worker:
        """A new helper for `role`; `infrastructure` if there can be none now."""
        try:
            ours, theirs = socket.socketpair()
            with theirs, contextlib.ExitStack() as undo:
                undo.callback(ours.close)
                pidfd = await trio.to_thread.run_sync(
                    self._fork, role, theirs, limiter=self._limiter
                )
                undo.pop_all()
        except OSError as error:
            raise infrastructure(
                f"cannot start a helper process: {error.strerror or error}", retryable=True
            ) from error
        return Worker(pidfd, trio.SocketStream(trio.socket.from_stdlib_socket(ours)))

    async def ping(self) -> None:
        """Return when the fork server has shown that it answers."""
        await trio.to_thread.run_sync(self._answer_ping, limiter=self._limiter)

    def _answer_ping(self) -> None:
        assert self._control is not None
        try:
            self._control.send(forkserver.PING)
            if self._control.recv(forkserver.MAX_MESSAGE):
                return
        except ConnectionError:
            pass
        self._stop()
        self._start()

    def _fork(self, role: str, connection: socket.socket) -> int:
        """Ask for a helper; its pidfd. A server that has died is replaced, once."""
        try:
            return self._ask(role, connection)
        except ConnectionError:
            self._stop()
            self._start()
            return self._ask(role, connection)

    def _ask(self, role: str, connection: socket.socket) -> int:
        assert self._control is not None
        socket.send_fds(self._control, [role.encode()], [connection.fileno()])
        answer, descriptors, _, _ = socket.recv_fds(self._control, forkserver.MAX_MESSAGE, 1)
        if not answer:
            raise ConnectionResetError("the fork server died")
        if answer != forkserver.OK:
            raise OSError(answer.decode())
        if not descriptors:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return descriptors[0]


class Worker:
    """A running helper process; close it, or kill it, to be rid of it."""

    def __init__(self, pidfd: int, connection: trio.SocketStream) -> None:
        self._pidfd = pidfd
        self._stream = connection
        self._reader = framing.FrameReader(connection.socket, MAX_FRAME)
        self.spent = False
        """Whether it is not to be used again, although it did nothing wrong."""

    async def send(self, item: Any) -> None:
        """Send one item; `infrastructure` if the helper is gone."""
        try:
            await self._stream.send_all(framing.encode_frame(item))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise _gone() from None

    async def send_descriptor(self, descriptor: int) -> None:
        """Hand a descriptor over; the caller keeps its own."""
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
        try:
            await self._stream.socket.sendmsg([b"\0"], [rights])
        except OSError:
            raise _gone() from None

    async def receive(self) -> Any:
        """The next item; `infrastructure` if the helper is gone."""
        try:
            body = await self._reader.read()
        except (framing.FrameError, OSError, trio.ClosedResourceError):
            raise _gone() from None
        if body is None:
            raise _gone()
        if len(body) > framing.MAX_FRAME:
            return await trio.to_thread.run_sync(framing.decode_item, body)
        return framing.decode_item(body)

    async def ended(self) -> None:
        """Wait until the process has ended."""
        await trio.lowlevel.wait_readable(self._pidfd)

    def dismiss(self) -> None:
        """Close the connection, on which the helper ends by itself."""
        self._stream.socket.close()

    async def close(self) -> None:
        """Dismiss the helper and wait for its end; kill it if it does not come."""
        for last_word in (self.dismiss, self.kill):
            last_word()
            with trio.move_on_after(_EXIT_SECONDS, shield=True):
                await self.ended()
                break
        os.close(self._pidfd)

    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return not poll.poll(0)

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)


def _gone() -> Exception:
    return infrastructure("a helper process of the daemon died", retryable=True)

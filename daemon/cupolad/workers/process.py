"""Starting and ending helper processes from the daemon.

Helpers are forked from a fork server that has their libraries loaded, so that one starts in
milliseconds and shares its memory.  A helper lives as long as its connection to the daemon, and
the kernel kills it if the fork server dies.  What a helper does is not known here: it is named by
its role, "module:function", and the daemon itself never imports that module.
"""

from __future__ import annotations

import array
import contextlib
import importlib
import multiprocessing
import os
import select
import signal
import socket
from collections.abc import Callable, Iterable
from typing import Any, Final, Self, cast

import trio

from cupola import framing
from cupola.errors import infrastructure
from cupolad.host import kernel

MAX_FRAME: Final = 64 * 1024 * 1024
_EXIT_SECONDS: Final = 5

_context = multiprocessing.get_context("forkserver")
_starting = trio.CapacityLimiter(1)


def start_fork_server(roles: Iterable[str]) -> None:
    """Start the fork server with the modules of `roles` loaded. Blocks for their import."""
    from multiprocessing import forkserver

    _context.set_forkserver_preload([role.partition(":")[0] for role in roles])
    forkserver.ensure_running()


def _run(role: str, connection: socket.socket) -> None:
    """The whole life of a helper process."""
    kernel.die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    module, _, function = role.partition(":")
    serve = cast(
        Callable[[socket.socket], None], getattr(importlib.import_module(module), function)
    )
    serve(connection)
    os._exit(0)


class Worker:
    """A running helper process; close it, or kill it, to be rid of it."""

    def __init__(self, process: Any, connection: trio.SocketStream) -> None:
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)
        self._stream = connection
        self._reader = framing.FrameReader(connection, MAX_FRAME)
        self.pid: int = process.pid

    @classmethod
    async def start(cls, role: str) -> Self:
        """Fork a helper for `role` ("module:function")."""
        ours, theirs = socket.socketpair()
        process = _context.Process(target=_run, args=(role, theirs), daemon=True)
        try:
            await trio.to_thread.run_sync(process.start, limiter=_starting)
        except OSError as error:
            ours.close()
            raise infrastructure(
                f"cannot start a helper process: {error.strerror}", retryable=True
            ) from error
        finally:
            theirs.close()
        return cls(process, trio.SocketStream(trio.socket.from_stdlib_socket(ours)))

    async def send(self, item: Any) -> None:
        """Send one item; `infrastructure` if the helper is gone."""
        try:
            await self._stream.send_all(framing.encode_frame(item))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._gone() from None

    async def send_descriptor(self, descriptor: int) -> None:
        """Hand a descriptor over; the caller keeps its own."""
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))
        try:
            await self._stream.socket.sendmsg([b"\0"], [rights])
        except OSError:
            raise self._gone() from None

    async def receive(self) -> Any:
        """The next item; `infrastructure` if the helper is gone."""
        try:
            body = await self._reader.read()
        except (framing.FrameError, trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._gone() from None
        if body is None:
            raise self._gone()
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
        self.dismiss()
        with trio.CancelScope(shield=True):
            with trio.move_on_after(_EXIT_SECONDS):
                await self.ended()
            if self.is_alive():
                self.kill()
                await self.ended()
        self._process.join()
        self._process.close()
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

    def _gone(self) -> Exception:
        return infrastructure("a helper process of the daemon died", retryable=True)

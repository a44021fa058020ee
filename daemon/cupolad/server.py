"""Accepts connections and gives each its session, as long as its user may have one more."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from cupola import framing, wire
from cupola.errors import CupolaError, RequestError, infrastructure
from cupolad import events, failures
from cupolad.peers import Peer
from cupolad.service import Service
from cupolad.session import Session

_REFUSAL_SECONDS = 5


class Server:
    """The accepting side; `stop` ends the accepting, cancelling `serve` ends the sessions too."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._accepting = trio.CancelScope()

    async def serve(self, listener: socket.socket) -> None:
        """Accept until `stop`, then serve those that are connected until cancelled."""
        async with trio.open_nursery() as sessions:
            with self._accepting:
                await trio.serve_listeners(
                    self._handle,
                    [trio.SocketListener(trio.socket.from_stdlib_socket(listener))],
                    handler_nursery=sessions,
                )
            await trio.sleep_forever()

    def stop(self) -> None:
        """Accept no more; connections that nobody has accepted wait for the next daemon."""
        self._accepting.cancel()

    async def _handle(self, stream: trio.SocketStream) -> None:
        async with stream:
            peer = Peer.of(stream.socket)
            try:
                with self._counted(peer):
                    await Session(self._service, stream, peer).serve()
            except CupolaError as error:
                await _refuse(stream, error)

    @contextmanager
    def _counted(self, peer: Peer) -> Iterator[None]:
        """Count the connection; `denied` or `quota_exceeded` if the user may not have it."""
        connections, limits = self._service.connections, self._service.config.limits
        if peer.uid in self._service.builder.uids.ids:
            events.REFUSED.tell(uid=peer.uid, code="denied", reason="it is a build's")
            raise RequestError("denied", "builds may not use the daemon")
        if connections[peer.uid] >= limits.connections and not peer.is_root:
            raise RequestError(
                "quota_exceeded",
                f"you have {limits.connections} connections open; close one",
                limit="connections",
            )
        if connections.total() >= _most_connections():
            raise infrastructure("the daemon has too many connections; try again", retryable=True)
        connections[peer.uid] += 1
        self._service.last_active = time.monotonic()
        try:
            yield
        finally:
            connections[peer.uid] -= 1
            if not connections[peer.uid]:
                del connections[peer.uid]
                self._service.shares.pop(peer.uid, None)
            self._service.last_active = time.monotonic()


def _most_connections() -> int:
    """As many as leave half of the descriptors to builds and the store."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2


async def _refuse(stream: trio.SocketStream, error: CupolaError) -> None:
    """Send an error as the only message of a connection."""
    frame = framing.encode_frame(wire.encode(failures.reply(error)))
    with trio.move_on_after(_REFUSAL_SECONDS):
        try:
            await stream.send_all(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

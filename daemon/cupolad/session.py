"""One connection, from its handshake to its end: reads requests, answers each, one at a time.

Whatever a request does, its answer is exactly one reply, one stream that ends, or one typed error.
When the client is gone, what it asked for is cancelled.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Final, TypeVar, assert_never

import outcome
import trio

from cupola import framing, wire
from cupola.errors import invalid_request
from cupola.framing import FrameReader
from cupola.messages import (
    Absent,
    Build,
    Commit,
    End,
    GetBlobs,
    GetDirectories,
    Hello,
    Missing,
    PutBlob,
    PutBlobs,
    PutChunk,
    PutDirectories,
    Reply,
    Request,
    Status,
    Welcome,
)
from cupolad import downloads, failures
from cupolad.failures import as_error
from cupolad.job import BuildJob
from cupolad.peers import ClientGoneError, Peer
from cupolad.service import SERVER, VERSION, Service
from cupolad.uploads import Put, Upload

T = TypeVar("T")

_LARGE_FRAME: Final = 64 * 1024
"""Frames above this size are decoded in a thread."""

_MAX_HELLO: Final = 4096
"""Bytes of the first frame: who speaks another protocol is sent away before he has sent much."""

_SEND_SECONDS: Final = 300
"""A client that takes so long for one message is taken for gone."""


class Session:
    """The connection of one client."""

    def __init__(self, service: Service, stream: trio.SocketStream, peer: Peer) -> None:
        limits = service.config.limits
        self._service, self._stream, self.peer = service, stream, peer
        seconds = limits.frame_seconds or math.inf
        self._reader = FrameReader(stream.socket, _MAX_HELLO, seconds)

    async def serve(self) -> None:
        """Serve the client until it goes, breaks the protocol, or something unforeseen happens."""
        with contextlib.suppress(ClientGoneError):
            try:
                if await self._shake_hands():
                    while (request := await self._receive()) is not None:
                        await self._answer(request)
            except ClientGoneError:
                raise
            except Exception as error:  # noqa: BLE001 - it ends one connection and no more
                await self.send(failures.reply(as_error(error, f"uid {self.peer.uid}")))

    async def _shake_hands(self) -> bool:
        hello = await self._receive()
        if hello is None:
            return False
        if not isinstance(hello, Hello):
            raise invalid_request("message", "must be a hello: the handshake comes first")
        if VERSION not in hello.versions:
            raise invalid_request("versions", f"must include {VERSION}, which is all I speak")
        self._reader.max_frame = self._service.config.limits.frame_bytes
        await self.send(Welcome(VERSION, SERVER, self._service.config.limits.named()))
        return True

    # --- messages --------------------------------------------------------------------------------

    async def _receive(self) -> Request | None:
        """The next request; None if the client has ended the connection properly."""
        body = await self._read()
        if body is None:
            return None
        if len(body) > _LARGE_FRAME:
            async with self._service.share(self.peer):
                return await trio.to_thread.run_sync(_decode, body, limiter=self._service.decoding)
        return _decode(body)

    async def _read(self) -> bytearray | None:
        try:
            return await self._reader.read()
        except (OSError, trio.ClosedResourceError):
            raise ClientGoneError from None

    async def send(self, message: Reply) -> None:
        """Send one message."""
        frame = framing.encode_frame(wire.encode(message))
        with trio.move_on_after(_SEND_SECONDS) as in_time:
            try:
                await self._stream.send_all(frame)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise ClientGoneError from None
        if in_time.cancelled_caught:
            raise ClientGoneError

    async def hang_up(self) -> None:
        """Return when the client closes the connection, or sends anything: it may not meanwhile."""
        try:
            await trio.lowlevel.wait_readable(self._stream.socket)
        except (OSError, trio.ClosedResourceError):
            return

    async def _in_thread(self, work: Callable[..., T], *args: object) -> T:
        """What `work` returns, done in one of the threads that this user may have."""
        async with self._service.share(self.peer):
            return await trio.to_thread.run_sync(work, *args, limiter=self._service.threads)

    # --- requests --------------------------------------------------------------------------------

    async def _answer(self, request: Request) -> None:
        match request:
            case Missing(blobs, directories):
                store = self._service.store
                absent = await self._in_thread(
                    lambda: Absent(
                        tuple(store.missing_blobs(blobs)),
                        tuple(store.missing_directories(directories)),
                    )
                )
                await self.send(absent)
            case PutBlobs() | PutBlob() | PutChunk() | PutDirectories():
                await self._receive_upload(request)
            case Commit():
                raise invalid_request("message", "must not be a commit: nothing was uploaded")
            case GetBlobs(digests):
                await self._stream_messages(downloads.blobs(self._service.store, digests))
            case GetDirectories(digests):
                await self._stream_messages(downloads.directories(self._service.store, digests))
            case Build(build_request):
                await BuildJob(self._service, self.peer).run(build_request, self)
            case Status():
                await self.send(await self._service.report(self.peer))
            case Hello():
                raise invalid_request("message", "must not be a second hello")
            case _:
                assert_never(request)

    async def _receive_upload(self, first: Put) -> None:
        """Take in put messages until the commit. An error ends the connection."""
        service = self._service
        upload = await self._in_thread(
            lambda: Upload(service.store.batch(), service.store.limits.blob_bytes)
        )
        try:
            message: Request | None = first
            while isinstance(message, Put):
                await self._reading_ahead(upload.put, message)
                message = await self._receive()
            if message is None:
                return
            if not isinstance(message, Commit):
                raise invalid_request("message", "must be a put message or a commit")
            stored = await self._in_thread(upload.commit, message)
        finally:
            with trio.CancelScope(shield=True):
                await self._in_thread(upload.close)
        await self.send(stored)

    async def _reading_ahead(self, work: Callable[..., None], *args: object) -> None:
        """Work; meanwhile, the next frame comes in."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._reader.read_ahead)
            result = await outcome.acapture(self._in_thread, work, *args)
            nursery.cancel_scope.cancel()
        result.unwrap()

    async def _stream_messages(self, messages: Iterator[Reply]) -> None:
        """Send what `messages` yields, then the end."""
        while (message := await self._in_thread(next, messages, None)) is not None:
            await self.send(message)
        await self.send(End())


def _decode(body: bytearray) -> Request:
    return wire.decode_request(framing.decode_item(body))

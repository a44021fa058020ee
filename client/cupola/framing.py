"""Frames: a 4-byte big-endian length, then one CBOR item of exactly that many bytes.

The item is deterministic CBOR (RFC 8949, section 4.2.1) without tags, indefinite lengths or
duplicate keys, at most 16 levels deep and made of at most 400,000 items; anything else is refused.
Refusing tags and keys that are not strings also keeps cbor2 from spending quadratic time on
colliding keys, and the number of items bounds time and memory: 8 MiB of empty arrays would become
half a gigabyte of objects.  What an item means is not known here.
"""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Awaitable
from typing import Any, Final, Protocol

import cbor2
import trio

HEADER_LENGTH: Final = 4
MAX_FRAME: Final = 8 * 1024 * 1024
"""Bytes in the longest item that a client accepts, and the daemon's default limit."""

MIN_FRAME: Final = 2 * 1024 * 1024
"""Bytes of an item that a daemon has to accept."""

OVERHEAD: Final = 64 * 1024
"""Bytes of a frame to leave for everything around one large byte string."""

MAX_DEPTH: Final = 16
"""Levels of arrays and maps in an item."""

MAX_ITEMS: Final = 400_000
"""Items in a frame, all levels together; a request with 20,000 inputs has about 260,000."""

_FIRST_BUFFER: Final = 256 * 1024
"""Bytes that are set aside for a frame before any have come."""


class FrameError(ValueError):
    """The bytes that came are no frame, or none that is accepted; the stream is useless now."""


class Source(Protocol):
    """What frames are read from: a trio socket."""

    def recv_into(self, buffer: memoryview, /) -> Awaitable[int]:
        """Fill the beginning of `buffer`; how many bytes, none at the end of the stream."""
        ...


def _refuse_tag(*_: object) -> Any:
    raise FrameError("tags are refused")


# cbor2 decodes the tags that it knows before it asks `tag_hook`, so each has to be named.
_KNOWN_TAGS = (
    *range(6), 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799,
)  # fmt: skip
_REFUSED_TAGS = dict.fromkeys(_KNOWN_TAGS, _refuse_tag)


def encode_frame(item: Any) -> bytes:
    """The frame that carries `item`."""
    body = encode_item(item)
    return struct.pack(">I", len(body)) + body


def encode_item(item: Any) -> bytes:
    """The deterministic encoding of `item`."""
    return cbor2.dumps(item, canonical=True)


def decode_item(body: bytes | bytearray) -> Any:
    """The item that `body` is the deterministic encoding of; FrameError for anything else."""
    if len(body) > MAX_ITEMS:
        _check_count(body)
    try:
        item = cbor2.loads(
            body,
            tag_hook=_refuse_tag,
            semantic_decoders=_REFUSED_TAGS,
            str_errors="strict",
            max_depth=MAX_DEPTH,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )
        canonical = cbor2.dumps(item, canonical=True)
    except FrameError:
        raise
    except (cbor2.CBORError, ValueError, TypeError, RecursionError) as error:
        raise FrameError(f"not CBOR as this protocol allows it: {type(error).__name__}") from None
    if canonical != body:
        raise FrameError("not CBOR in its deterministic encoding, or followed by more bytes")
    return item


def _check_count(body: bytes | bytearray) -> None:
    """Refuse what would become too many objects. Reads heads only (RFC 8949, section 3)."""
    position = count = 0
    while position < len(body):
        head = body[position]
        position += 1
        value = head & 0x1F
        if value >= 24:
            width = 1 << (value - 24) if value < 28 else 0
            value = int.from_bytes(body[position : position + width], "big")
            position += width
        if head >> 5 in (2, 3):  # byte and text strings
            position += value
        count += 1
        if count > MAX_ITEMS:
            raise FrameError(f"more than {MAX_ITEMS} items in one frame")


class FrameReader:
    """Reads frames from a source; bodies of up to `max_frame` bytes are accepted.

    A frame that has begun has to be there in whole after `seconds`, however its bytes come in.
    Memory grows with the bytes that have come, never with the length that a header claims.  A
    read that is cancelled loses nothing: the next one goes on where it was.
    """

    def __init__(
        self, source: Source, max_frame: int = MAX_FRAME, seconds: float = math.inf
    ) -> None:
        self._source = source
        self.max_frame = max_frame
        self._seconds = seconds
        self._start_frame()

    def _start_frame(self) -> None:
        self._header = bytearray(HEADER_LENGTH)
        self._length: int | None = None
        """Of the body; None as long as the header is not complete."""
        self._body = bytearray()
        self._received = 0
        """Bytes of header, then of body."""
        self._deadline = math.inf

    async def read(self) -> bytearray | None:
        """The body of the next frame, or None when the stream ends between two frames."""
        if not self._received and self._length is None and not await self._receive():
            return None
        with trio.move_on_at(self._deadline):
            while self._received != self._length:
                if not await self._receive():
                    raise FrameError("the stream ended in the middle of a frame")
            body = self._body
            self._start_frame()
            return body
        raise FrameError(f"a frame was not there in whole after {self._seconds:g} s")

    async def read_ahead(self) -> None:
        """Take in what comes of the next frame, and return when it is complete.

        To be cancelled at will; what goes wrong is left for `read` to find.
        """
        with contextlib.suppress(OSError, trio.ClosedResourceError, FrameError):
            while self._received != self._length and await self._receive():
                pass

    async def _receive(self) -> bool:
        """Take in some bytes; False at the end of the stream."""
        with self._room() as room:
            count = await self._source.recv_into(room)
        if not count:
            return False
        if self._deadline == math.inf:
            self._deadline = trio.current_time() + self._seconds
        self._received += count
        return True

    def _room(self) -> memoryview:
        """Where the next bytes belong."""
        if self._length is None and self._received < HEADER_LENGTH:
            return memoryview(self._header)[self._received :]
        if self._length is None:
            self._start_body()
        elif self._received == len(self._body):
            self._body += bytes(min(self._length, 2 * self._received) - self._received)
        return memoryview(self._body)[self._received :]

    def _start_body(self) -> None:
        (length,) = struct.unpack(">I", self._header)
        if not 0 < length <= self.max_frame:
            raise FrameError(f"a frame has 1 to {self.max_frame} bytes, not {length}")
        self._length, self._received = length, 0
        self._body = bytearray(min(length, _FIRST_BUFFER))

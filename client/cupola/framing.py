"""Frames: a 4-byte big-endian length, then one CBOR item of exactly that many bytes.

The item is deterministic CBOR (RFC 8949, section 4.2.1) without tags, indefinite lengths or
duplicate keys and at most 16 levels deep; anything else is refused.  Refusing tags and keys that
are not strings also keeps cbor2 from spending quadratic time on colliding keys.  What an item
means is not known here.
"""

from __future__ import annotations

import io
import math
import struct
from typing import Any, Final, Protocol

import cbor2
import trio

HEADER_LENGTH: Final = 4
MAX_FRAME: Final = 8 * 1024 * 1024
"""Bytes in the longest item that a client accepts, and the daemon's default limit."""

OVERHEAD: Final = 64 * 1024
"""Bytes of a frame to leave for everything around one large byte string."""

MAX_DEPTH: Final = 16
"""Levels of arrays and maps in an item."""

_READ_SIZE: Final = 256 * 1024


class FrameError(ValueError):
    """The bytes that came are no frame, or none that is accepted; the stream is useless now."""


class ByteStream(Protocol):
    """What frames are read from: any trio stream that can receive."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Some bytes, at least one; none at the end of the stream."""
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
    body = cbor2.dumps(item, canonical=True)
    return struct.pack(">I", len(body)) + body


def decode_item(body: bytes | bytearray) -> Any:
    """The item that `body` is the deterministic encoding of; FrameError for anything else."""
    stream = io.BytesIO(body)
    try:
        item = cbor2.CBORDecoder(
            stream,
            tag_hook=_refuse_tag,
            semantic_decoders=_REFUSED_TAGS,
            str_errors="strict",
            max_depth=MAX_DEPTH,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        ).decode()
        canonical = cbor2.dumps(item, canonical=True)
    except FrameError:
        raise
    except (cbor2.CBORError, ValueError, TypeError, RecursionError) as error:
        raise FrameError(f"not CBOR as this protocol allows it: {type(error).__name__}") from None
    if canonical != body:
        raise FrameError("not CBOR in its deterministic encoding, or followed by more bytes")
    return item


class FrameReader:
    """Reads frames from a stream; bodies of up to `max_frame` bytes are accepted.

    A frame that has begun has to be there in whole after `seconds`, however its bytes come in.
    Memory grows with the bytes that have come, never with the length that a header claims.
    """

    def __init__(
        self, stream: ByteStream, max_frame: int = MAX_FRAME, seconds: float = math.inf
    ) -> None:
        self._stream = stream
        self.max_frame = max_frame
        self._seconds = seconds
        self._pending = bytearray()

    async def read(self) -> bytearray | None:
        """The body of the next frame, or None when the stream ends between two frames."""
        if not await self._fill(1):
            return None
        with trio.move_on_after(self._seconds):
            return await self._read_begun()
        raise FrameError(f"a frame was not there in whole after {self._seconds:g} s")

    async def _read_begun(self) -> bytearray:
        await self._fill(HEADER_LENGTH)
        (length,) = struct.unpack_from(">I", self._pending)
        if not 0 < length <= self.max_frame:
            raise FrameError(f"a frame has 1 to {self.max_frame} bytes, not {length}")
        await self._fill(HEADER_LENGTH + length)
        body = self._pending[HEADER_LENGTH : HEADER_LENGTH + length]
        del self._pending[: HEADER_LENGTH + length]
        return body

    async def _fill(self, wanted: int) -> bool:
        """Wait until `wanted` bytes are pending; False if the stream ended before the first."""
        pending = self._pending
        while len(pending) < wanted:
            data = await self._stream.receive_some(_READ_SIZE)
            if not data:
                if pending:
                    raise FrameError("the stream ended in the middle of a frame")
                return False
            pending += data
        return True

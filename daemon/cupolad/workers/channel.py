"""The helper's end of its connection to the daemon: frames, and a descriptor on top of one byte.

Blocking on purpose: a helper has one master and does one thing at a time.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

from cupola import framing


class Channel:
    """A connected stream socket that carries frames of any length."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def send(self, item: Any) -> None:
        """Send one item."""
        self.connection.sendall(framing.encode_frame(item))

    def receive(self) -> Any:
        """The next item; None when the daemon has closed the connection."""
        header = self._receive_exactly(framing.HEADER_LENGTH)
        if not header:
            return None
        (length,) = struct.unpack(">I", header)
        return framing.decode_item(self._receive_exactly(length))

    def receive_descriptor(self) -> int | None:
        """The descriptor that comes with the next byte; None if the connection was closed."""
        _, descriptors, _, _ = socket.recv_fds(self.connection, 1, 1)
        return descriptors[0] if descriptors else None

    def _receive_exactly(self, count: int) -> bytearray:
        """So many bytes; fewer only if the connection was closed before the first."""
        data = bytearray()
        while len(data) < count:
            piece = self.connection.recv(count - len(data))
            if not piece:
                break
            data += piece
        return data

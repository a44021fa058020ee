"""Who is at the other end of a connection: what the kernel says, and nothing the peer says."""

from __future__ import annotations

import pwd
import socket
import struct
from dataclasses import dataclass
from typing import Final, Protocol, Self

_CREDENTIALS: Final = struct.Struct("=iII")
"""`struct ucred` of unix(7): process, user, group."""

ROOT: Final = 0


class ClientGoneError(Exception):
    """The client has closed the connection, or does not read what it is sent."""


class HasOptions(Protocol):
    """A socket, of the standard library or of trio."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """An option's raw value."""
        ...


@dataclass(frozen=True, slots=True)
class Peer:
    """The user that connected; `uid` is that at the time of connect(2)."""

    uid: int
    gid: int

    @classmethod
    def of(cls, connection: HasOptions) -> Self:
        """The peer of a connected Unix socket (SO_PEERCRED)."""
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, gid = _CREDENTIALS.unpack(raw)
        return cls(uid, gid)

    def name(self) -> str:
        """What administrators know the user by. Blocks: the user database is asked."""
        try:
            return f"{pwd.getpwuid(self.uid).pw_name} (uid {self.uid})"
        except KeyError:
            return f"uid {self.uid}"

    @property
    def is_root(self) -> bool:
        """Whether this is the administrator, who may see every user's builds."""
        return self.uid == ROOT

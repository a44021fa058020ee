"""The listening socket: inherited from systemd (sd_listen_fds(3)) or made by the daemon."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_FIRST_INHERITED: Final = 3
_BACKLOG: Final = 1024
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")

SOCKET_MODE: Final = 0o666
"""Of a socket that the daemon makes: whoever can reach its directory may use it."""


class ActivationError(Exception):
    """There is no socket to listen on; the message says why."""


def is_service(environment: Mapping[str, str]) -> bool:
    """Whether systemd has started this very process (systemd.exec(5))."""
    return environment.get("SYSTEMD_EXEC_PID") == str(os.getpid())


def take_inherited(environment: MutableMapping[str, str]) -> socket.socket | None:
    """The one socket that systemd passed; None if this process was not socket-activated.

    Its variables are removed, so that no child takes them for its own.
    """
    pid, count = environment.get("LISTEN_PID"), environment.get("LISTEN_FDS")
    for variable in _VARIABLES:
        environment.pop(variable, None)
    if pid != str(os.getpid()) or count is None:
        return None
    if count != "1":
        raise ActivationError(
            f"expected one socket from systemd, got {count}; check cupolad.socket"
        )
    os.set_inheritable(_FIRST_INHERITED, False)  # noqa: FBT003
    listener = socket.socket(fileno=_FIRST_INHERITED)
    if listener.family != socket.AF_UNIX or listener.type != socket.SOCK_STREAM:
        raise ActivationError("the socket from systemd is no Unix stream socket")
    return listener


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A new socket at `path`, which is removed at the end."""
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(SOCKET_MODE)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ActivationError(f"cannot listen at {path}: {error.strerror or error}") from error
    try:
        yield listener
    finally:
        listener.close()
        path.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    """Remove the socket of a dead daemon; ActivationError if it is alive, or no socket."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ActivationError(f"{path} exists and is no socket; choose another --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                path.unlink()
                return
            raise ActivationError(f"cannot tell who owns {path}: {error.strerror}") from error
    raise ActivationError(f"another daemon listens at {path}; stop it or choose another --socket")

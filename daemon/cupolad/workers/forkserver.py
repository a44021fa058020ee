"""A process that has the helpers' libraries loaded and forks one on demand, in milliseconds.

Small and single-threaded, so that forking is safe.  It lives as long as its control socket, and
the kernel kills its children when it dies.  (The standard library has such a server too; that one
brings a second process along, sends pickles, and offers no way to end it.)

On the control socket, of kind SEQPACKET: `role` with the helper's connection attached; the answer
is `ok` with a pidfd attached, or a sentence that says why not.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Final, NoReturn, cast

from cupolad.host import kernel

MAX_MESSAGE: Final = 1024
OK: Final = b"ok"
PING: Final = b"ping"

Role = Callable[[socket.socket], None]


def _role(name: str) -> Role:
    """The function that "module:function" names."""
    module, _, function = name.partition(":")
    return cast(Role, getattr(importlib.import_module(module), function))


def _run_helper(name: str, connection: socket.socket) -> NoReturn:
    """The whole life of a helper, after the fork."""
    status = 1
    try:
        kernel.die_with_parent(signal.SIGKILL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _role(name)(connection)
        status = 0
    except BaseException:  # noqa: BLE001 - there is nobody above
        traceback.print_exc()
    finally:
        os._exit(status)


def serve(control: socket.socket, roles: Sequence[str]) -> None:
    """Load the modules of `roles`, then fork helpers until the daemon closes `control`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel collects the children
    for name in roles:
        _role(name)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, MAX_MESSAGE, 1)
        if not message:
            return
        if message == PING:
            control.send(OK)
            continue
        with socket.socket(fileno=descriptors[0]) as connection:
            try:
                pid = os.fork()
            except OSError as error:
                control.send((error.strerror or "").encode())
                continue
            if pid == 0:
                control.close()
                _run_helper(message.decode(), connection)
            _answer(control, pid)


def _answer(control: socket.socket, pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        control.send(b"the helper died at once")
        return
    socket.send_fds(control, [OK], [pidfd])
    os.close(pidfd)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as _control:
        serve(_control, sys.argv[2:])

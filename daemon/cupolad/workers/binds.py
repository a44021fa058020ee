"""Binds each input of a build to its own place in a scratch directory.

Runs in a process of its own (`serve`): to bind an input, the kernel asks the FUSE server for it,
and the daemon must not wait for an answer that may never come.
"""

from __future__ import annotations

import socket
from typing import Any

from cupolad.host import kernel
from cupolad.workers.channel import Channel


def serve(connection: socket.socket) -> None:
    """The process: answers each job until the connection ends.

    A job is `{"source", "target", "names"}`: two directories, and what to bind from the one over
    what has the same name in the other.  The answer is `{}`, or `{"fault"}` with the reason.
    """
    channel = Channel(connection)
    while (job := channel.receive()) is not None:
        channel.send(_bind(job))


def _bind(job: dict[str, Any]) -> dict[str, str]:
    for name in job["names"]:
        source, target = f"{job['source']}/{name}", f"{job['target']}/{name}"
        try:
            kernel.mount(source, target, "none", kernel.MS_BIND)
        except OSError as error:
            return {"fault": f"{name}: {error.strerror}"}
    return {}

"""The end of a container: its cgroup is killed as a whole, and nothing goes on before it is empty."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import trio

from cupola.errors import HostError
from cupolad import events
from cupolad.host.cgroups import Cgroup

_KILL_SECONDS: Final = 30
_ABORT_SECONDS: Final = 1


class StuckError(HostError):
    """Processes of a build cannot be killed; nothing of theirs may be used again."""

    def __init__(self) -> None:
        super().__init__(
            "infrastructure",
            "the build's processes cannot be killed; tell the administrator",
            retryable=False,
        )


async def start(fifo: Path, ended: Callable[[], Awaitable[object]]) -> None:
    """Let the program of a container begin that waits at `fifo`; return at once if it has ended.

    This is what `runc start` does, without the process for it.
    """
    descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        async with trio.open_nursery() as nursery:

            async def give_up() -> None:
                await ended()
                nursery.cancel_scope.cancel()

            nursery.start_soon(give_up)
            await trio.lowlevel.wait_readable(descriptor)
            nursery.cancel_scope.cancel()
    finally:
        os.close(descriptor)


async def end(cgroup: Cgroup, abort: Callable[[], None] | None = None) -> None:
    """Kill what is left in a cgroup until it is empty, and remove it.

    Bounded, and never cancelled.  In most cases nothing is left, and removing it shows that.  A
    process that does not die waits for a FUSE server that does not answer; `abort` frees it.
    StuckError if there are processes left all the same.
    """
    if not await repeat(cgroup.remove, cgroup.kill, _KILL_SECONDS, abort):
        events.STUCK.tell(cgroup=cgroup.group, seconds=_KILL_SECONDS)
        raise StuckError


async def repeat(
    done: Callable[[], bool],
    act: Callable[[], None],
    seconds: float,
    abort: Callable[[], None] | None = None,
) -> bool:
    """Whether `done` comes true within so many seconds of asking, and of acting in between.

    Never cancelled.  cgroup v1 has no event to wait for.
    """
    begin, delay = trio.current_time(), 0.001
    with trio.move_on_after(seconds, shield=True):
        while not await trio.to_thread.run_sync(done):
            act()
            if abort is not None and trio.current_time() > begin + _ABORT_SECONDS:
                abort()
            await trio.sleep(delay)
            delay = min(2 * delay, 0.1)
        return True
    return False

"""Watches a running container: moves what it writes to the log, and ends it when a limit is hit.

Knows processes by their cgroup only; what started them is not known here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import trio
from trio.abc import ReceiveStream

from cupola.errors import BuildError, CupolaError, infrastructure
from cupolad.host.cgroups import Cgroup
from cupolad.logs import BuildLog, Stream

_DRAIN_SECONDS: Final = 5
_DEATH_SECONDS: Final = 2
"""After a kill; a process that takes longer is stuck in the kernel."""
_READ_SIZE: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class RunLimits:
    """How long a build may run, and be silent, in seconds; None for no limit."""

    wall: float | None = None
    silence: float | None = None


class Watch:
    """Watches a running container; the first of several things ends it."""

    def __init__(self, cgroup: Cgroup, limits: RunLimits, log: BuildLog) -> None:
        self._cgroup, self._limits, self._log = cgroup, limits, log
        self._silent_since = trio.current_time()
        self._verdict: CupolaError | None = None
        self._waiting = trio.CancelScope()
        """For the end of the program and the rest of its log."""

    async def until_end(
        self,
        ended: Callable[[], Awaitable[None]],
        stdout: ReceiveStream,
        stderr: ReceiveStream,
        doom: Callable[[], Awaitable[None]],
    ) -> None:
        """Return when the first process has `ended` and all that it wrote is in the log.

        If a limit ended it, or the host (`doom` has returned), the error that says so is raised.
        """
        async with trio.open_nursery() as watchers:
            if self._limits.wall is not None:
                watchers.start_soon(self._limit_wall, self._limits.wall)
            if self._limits.silence is not None:
                watchers.start_soon(self._limit_silence, self._limits.silence)
            if self._cgroup.oom_events is not None:
                watchers.start_soon(self._end_when_out_of_memory, self._cgroup.oom_events)
            watchers.start_soon(self._end_on, doom)
            async with trio.open_nursery() as pumps:
                pumps.start_soon(self._pump, "stdout", stdout)
                pumps.start_soon(self._pump, "stderr", stderr)
                self._waiting = pumps.cancel_scope
                await ended()
                pumps.cancel_scope.deadline = trio.current_time() + _DRAIN_SECONDS
            watchers.cancel_scope.cancel()
        if self._verdict is not None:
            raise self._verdict

    def _condemn(self, verdict: CupolaError | None) -> None:
        """Kill the build; `verdict` is what the client is told, if nothing was said before."""
        self._verdict = self._verdict or verdict
        self._cgroup.kill()
        self._waiting.deadline = min(self._waiting.deadline, trio.current_time() + _DEATH_SECONDS)

    async def _pump(self, stream: Stream, source: ReceiveStream) -> None:
        """Move what the build writes into the log."""
        while data := await source.receive_some(_READ_SIZE):
            self._silent_since = trio.current_time()
            try:
                await self._log.append(stream, bytes(data))
            except BuildError as error:
                self._condemn(error)
                return
            except OSError as error:
                self._condemn(
                    infrastructure(f"cannot write the log: {error.strerror}", retryable=True)
                )
                return

    async def _limit_wall(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self._condemn(
            BuildError("timeout", f"the build ran for more than {seconds:g} s", limit=int(seconds))
        )

    async def _limit_silence(self, seconds: float) -> None:
        # Not a busy wait: it sleeps until the silence could be long enough.
        while (left := self._silent_since + seconds - trio.current_time()) > 0:  # noqa: ASYNC110
            await trio.sleep(left)
        self._condemn(
            BuildError("silence", f"the build wrote nothing for {seconds:g} s", limit=int(seconds))
        )

    async def _end_when_out_of_memory(self, events: int) -> None:
        """cgroup v1 kills one process only; v2 is told to kill them all by itself."""
        await trio.lowlevel.wait_readable(events)
        self._condemn(None)

    async def _end_on(self, doom: Callable[[], Awaitable[None]]) -> None:
        await doom()
        self._condemn(infrastructure("the server of the inputs died", retryable=True))

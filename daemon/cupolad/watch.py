"""Watches a running container: moves what it writes to the log, and ends it when a limit is hit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import trio

from cupola.errors import BuildError, CupolaError, infrastructure
from cupolad.host.cgroups import Cgroup
from cupolad.launch import Container, Ending
from cupolad.launch.streams import Output
from cupolad.logs import BuildLog, Stream

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
        """For the end of the program."""

    async def until_end(
        self, container: Container, doom: Callable[[], Awaitable[None]]
    ) -> Ending | None:
        """How the first process ended, once all that it wrote is in the log.

        If a limit ended it, or the host (`doom` has returned), or an administrator, the error that
        says so is raised; None if it does not end all the same.
        """
        ending = None
        async with trio.open_nursery() as watchers:
            if self._limits.wall is not None:
                watchers.start_soon(self._limit_wall, self._limits.wall)
            if self._limits.silence is not None:
                watchers.start_soon(self._limit_silence, self._limits.silence)
            if self._cgroup.oom_events is not None:
                watchers.start_soon(self._end_when_out_of_memory, self._cgroup.oom_events)
            watchers.start_soon(self._end_on, doom, _inputs_died)
            watchers.start_soon(self._end_on, container.interrupted, cancelled)
            watchers.start_soon(self._pump, "stdout", container.stdout)
            watchers.start_soon(self._pump, "stderr", container.stderr)
            with self._waiting:
                ending = await container.ended()
            watchers.cancel_scope.cancel()
        # Whoever else may hold the pipes open, no process of the build writes any more.
        await self._take_rest("stdout", container.stdout)
        await self._take_rest("stderr", container.stderr)
        if self._verdict is not None:
            raise self._verdict
        return ending

    def _condemn(self, verdict: CupolaError | None) -> None:
        """Kill the build; `verdict` is what the client is told, if nothing was said before."""
        self._verdict = self._verdict or verdict
        self._cgroup.kill_container()
        self._waiting.deadline = min(self._waiting.deadline, trio.current_time() + _DEATH_SECONDS)

    async def _pump(self, stream: Stream, source: Output) -> None:
        """Move what the build writes into the log, as it comes."""
        while data := await source.receive(_READ_SIZE):
            if not await self._keep(stream, data):
                return

    async def _take_rest(self, stream: Stream, source: Output) -> None:
        """Move what is left in the pipe into the log."""
        while data := source.receive_now(_READ_SIZE):
            if not await self._keep(stream, data):
                return

    async def _keep(self, stream: Stream, data: bytes) -> bool:
        """Append to the log; whether there is room for more. What was read is not lost."""
        self._silent_since = trio.current_time()
        try:
            with trio.CancelScope(shield=True):
                await self._log.append(stream, data)
        except BuildError as error:
            self._condemn(error)
        except OSError as error:
            self._condemn(infrastructure(f"cannot write the log: {error.strerror}", retryable=True))
        else:
            return True
        return False

    async def _limit_wall(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self._condemn(timed_out(seconds))

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

    async def _end_on(
        self, doom: Callable[[], Awaitable[None]], verdict: Callable[[], CupolaError]
    ) -> None:
        await doom()
        self._condemn(verdict())


def cancelled() -> BuildError:
    """An administrator has ended the build."""
    return BuildError("cancelled", "an administrator ended the build")


def timed_out(seconds: float) -> BuildError:
    """The build took too long."""
    return BuildError("timeout", f"the build ran for more than {seconds:g} s", limit=int(seconds))


def _inputs_died() -> CupolaError:
    return infrastructure("the server of the inputs died", retryable=True)

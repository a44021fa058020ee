"""Containers as children of the daemon, in cgroups that it makes: the way without systemd.

The command that makes the container ends once it is made, so the container costs no second
process.  The daemon is the subreaper of its descendants: it learns the true exit status.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from cupola.errors import infrastructure
from cupolad.host.cgroups import Cgroup, Hierarchies
from cupolad.launch.containers import Ending, NotStartedError, Order
from cupolad.launch.ending import end, start
from cupolad.launch.streams import Output, Pipe

_START_SECONDS: Final = 60
_COLLECT_SECONDS: Final = 5


class ChildLauncher:
    """Starts containers below the daemon; their cgroups lie below `parent`."""

    def __init__(self, hierarchies: Hierarchies, parent: str) -> None:
        self._hierarchies, self.parent = hierarchies, parent

    def cgroup(self, build_id: str) -> Cgroup:
        """The cgroup that a build will have."""
        return Cgroup(self._hierarchies, f"{self.parent}/{build_id}")

    @asynccontextmanager
    async def launched(self, order: Order) -> AsyncIterator[ChildContainer]:
        """The container, for the length of the block; see `Launcher`."""
        container = None
        try:
            try:
                await trio.to_thread.run_sync(order.cgroup.create, order.limits)
            except OSError as error:
                raise infrastructure(
                    f"cannot make a cgroup: {error.strerror}", retryable=True
                ) from error
            container = await _create(order)
            order.cgroup.watch_memory()
            await start(order.start_fifo, container.ended)
            yield container
        finally:
            try:
                await end(order.cgroup, order.abort)
            finally:
                if container is not None:
                    await container.close()

    async def stop_all(self) -> int:
        """Nothing but cgroups tells of children of a daemon that is no more."""
        return 0


class ChildContainer:
    """A container whose first process is an orphan that the daemon has adopted, and collects."""

    def __init__(self, pid: int, stdout: Output, stderr: Output) -> None:
        self._pidfd = os.pidfd_open(pid)
        self.stdout, self.stderr = stdout, stderr
        self._ending: Ending | None = None

    async def ended(self) -> Ending:
        """Wait until its first process has ended; how it did."""
        while self._ending is None:
            await trio.lowlevel.wait_readable(self._pidfd)
            self._ending = self._ending or self._collect()
        return self._ending

    def _collect(self) -> Ending:
        status = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        assert status is not None
        exited = status.si_code == os.CLD_EXITED
        return Ending(status.si_status, None) if exited else Ending(None, status.si_status)

    async def interrupted(self) -> None:
        """Nobody but the daemon knows of it."""
        await trio.sleep_forever()

    async def close(self) -> None:
        """Collect the process, after its cgroup was emptied."""
        with trio.move_on_after(_COLLECT_SECONDS, shield=True):
            await self.ended()
        os.close(self._pidfd)
        self.stdout.close()
        self.stderr.close()


async def _create(order: Order) -> ChildContainer:
    """Make the container.

    This is never interrupted: runc cleans up after itself only if it is let finish.
    """
    with Pipe(order.owner) as out, Pipe(order.owner) as err:
        try:
            with trio.move_on_after(_START_SECONDS, shield=True):
                process = await trio.run_process(
                    order.create,
                    stdin=subprocess.DEVNULL,
                    stdout=out.writer,
                    stderr=err.writer,
                    env=order.environment,
                    cwd="/",
                    check=False,
                    deliver_cancel=_kill,
                )
                if process.returncode != 0:
                    raise NotStartedError
                return ChildContainer(int(order.pid_file.read_text()), out.output, err.output)
            raise infrastructure(f"runc took more than {_START_SECONDS} s", retryable=True)
        except OSError as error:
            raise infrastructure(
                f"cannot execute {order.create[0]}: {error.strerror}", retryable=False
            ) from error


async def _kill(process: trio.Process) -> None:
    process.kill()
    await process.wait()

"""The fourth step: runs a bundle with runc, and ends it whatever happens.

runc only starts the container (`run --detach`): the container then has the daemon's own pipes and
/dev/null, and costs no second process.  The daemon is the subreaper of its descendants, so it
learns the true exit status.  What ends a build is its cgroup: it is killed as a whole, and nothing
goes on before it is empty.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import trio

from cupola.errors import BuildError, CupolaError, HostError, infrastructure
from cupola.messages import BuildUsage
from cupolad.host import files
from cupolad.host.cgroups import Cgroup, CgroupLimits
from cupolad.layout import Layout
from cupolad.logs import BuildLog
from cupolad.watch import RunLimits, Watch

_log = logging.getLogger(__name__)

ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "GOMAXPROCS": "1", "LANG": "C"}
"""All that runc's own process gets. One Go thread starts a container faster than several."""

_START_SECONDS: Final = 60
_KILL_SECONDS: Final = 30
_ABORT_SECONDS: Final = 1
_COLLECT_SECONDS: Final = 5

_CANNOT_EXECUTE: Final = re.compile(r'exec: "(?P<program>(?:[^"\\]|\\.)*)": (?P<reason>[^"]+)$')


@dataclass(frozen=True, slots=True)
class Exit:
    """How the build's first process ended: one of the two is None."""

    code: int | None
    signal: int | None
    usage: BuildUsage


@dataclass(frozen=True, slots=True)
class Runtime:
    """The runc binary, and the directory where it keeps its state, owned by the daemon alone."""

    binary: str
    root: Path

    async def run(
        self,
        layout: Layout,
        cgroup: Cgroup,
        group_limits: CgroupLimits,
        limits: RunLimits,
        owner: int,
        log: BuildLog,
        mount: Mount,
    ) -> Exit:
        """Run the bundle of `layout` to its end; BuildError if a limit ended it.

        `owner` is the host's id of the build's user; without `mount` the build cannot go on.  When
        this returns or raises, no process of the build is left, unless it raises StuckError.
        """
        async with self._container(layout, cgroup, group_limits, mount) as init:
            stdout, stderr = await self._start(layout, owner, init)
            started = trio.current_time()
            async with stdout, stderr:
                watch = Watch(cgroup, limits, log)
                await watch.until_end(init.ended, stdout, stderr, mount.failed)
            usage = BuildUsage(
                wall_us=int((trio.current_time() - started) * 1e6),
                cpu_us=cgroup.cpu_us(),
                memory_peak=cgroup.memory_peak(),
            )
            if cgroup.ran_out_of_memory():
                raise _out_of_memory(group_limits)
        assert init.status is not None, "the container was entered and left"
        if init.status.si_code == os.CLD_EXITED:
            return Exit(init.status.si_status, None, usage)
        return Exit(None, init.status.si_status, usage)

    @asynccontextmanager
    async def _container(
        self, layout: Layout, cgroup: Cgroup, limits: CgroupLimits, mount: Mount
    ) -> AsyncIterator[_Init]:
        """The cgroup of the build; at the end, whatever is left of the container is removed.

        A stopped container is nothing but its cgroup and runc's record of it, so there is no need
        to start runc once more to delete it.
        """
        init = _Init()
        try:
            try:
                await trio.to_thread.run_sync(cgroup.create, limits)
            except OSError as error:
                raise infrastructure(
                    f"cannot make a cgroup: {error.strerror}", retryable=True
                ) from error
            yield init
        finally:
            try:
                await end(cgroup, mount.abort)
            finally:
                await init.collect()
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self.forget, layout.build_id)

    def forget(self, build_id: str) -> None:
        """Remove runc's record of a container that is no more. Blocks."""
        with files.opened(files.open_directory(self.root)) as root:
            files.remove_tree(root, build_id.encode())

    def sweep(self) -> int:
        """Remove runc's record of every container; return how many there were. Blocks."""
        with files.opened(files.open_directory(self.root)) as root:
            names = os.listdir(root)
            for name in names:
                files.remove_tree(root, os.fsencode(name))
        return len(names)

    async def _start(
        self, layout: Layout, owner: int, init: _Init
    ) -> tuple[trio.lowlevel.FdStream, trio.lowlevel.FdStream]:
        """Start the container; what it writes to stdout and stderr.

        A start is never interrupted: runc cleans up after itself only if it is let finish.
        """
        command = [
            self.binary,
            "--root", str(self.root),
            "--log", str(layout.runc_log),
            "--log-format", "json",
            "run",
            "--detach",
            "--pid-file", str(layout.pid_file),
            "--bundle", str(layout.bundle),
            layout.build_id,
        ]  # fmt: skip
        with _Pipe(owner) as out, _Pipe(owner) as err:
            with trio.move_on_after(_START_SECONDS, shield=True):
                try:
                    process = await trio.run_process(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=out.writer,
                        stderr=err.writer,
                        env=ENVIRONMENT,
                        cwd="/",
                        check=False,
                        deliver_cancel=_kill,
                    )
                except OSError as error:
                    raise infrastructure(
                        f"cannot execute {self.binary}: {error.strerror}", retryable=False
                    ) from error
                if process.returncode == 0:
                    init.adopt(int(layout.pid_file.read_text()))
                    return out.detach(), err.detach()
                raise _start_error(layout)
        raise infrastructure(f"runc did not start within {_START_SECONDS} s", retryable=True)


class Mount(Protocol):
    """What a build reads its inputs through."""

    async def failed(self) -> None:
        """Return when it has failed."""
        ...

    def abort(self) -> None:
        """Fail every access, pending or future."""
        ...


class StuckError(HostError):
    """Processes of a build cannot be killed; nothing of theirs may be used again."""

    def __init__(self) -> None:
        super().__init__(
            "infrastructure",
            "the build's processes cannot be killed; tell the administrator",
            retryable=False,
        )


class _Init:
    """The container's first process, an orphan that the daemon has adopted and has to collect."""

    def __init__(self) -> None:
        self._pidfd: int | None = None
        self.status: os.waitid_result | None = None
        """How it ended, once it was collected."""

    def adopt(self, pid: int) -> None:
        """Take care of `pid`, which is our child since runc has ended."""
        self._pidfd = os.pidfd_open(pid)

    async def ended(self) -> None:
        """Wait until it has ended."""
        assert self._pidfd is not None
        await trio.lowlevel.wait_readable(self._pidfd)

    async def collect(self) -> None:
        """Learn how it ended, after its cgroup was emptied; nothing if it never was."""
        if self._pidfd is None:
            return
        with trio.move_on_after(_COLLECT_SECONDS, shield=True):
            await self.ended()
            self.status = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)  # noqa: ASYNC222
        os.close(self._pidfd)
        self._pidfd = None


class _Pipe:
    """A pipe for what the build writes; it belongs to the build's user, who may reopen it."""

    def __init__(self, owner: int) -> None:
        reader, self.writer = os.pipe2(os.O_CLOEXEC)
        os.fchown(self.writer, owner, -1)
        self._reader: int | None = reader

    def __enter__(self) -> _Pipe:
        return self

    def detach(self) -> trio.lowlevel.FdStream:
        """The reading end, which outlives the block."""
        assert self._reader is not None
        stream, self._reader = trio.lowlevel.FdStream(self._reader), None
        return stream

    def __exit__(self, *_: object) -> None:
        os.close(self.writer)
        if self._reader is not None:
            os.close(self._reader)


async def end(cgroup: Cgroup, abort: Callable[[], None] | None = None) -> None:
    """Kill what is left in a cgroup until it is empty, and remove it.

    Bounded, and never cancelled.  In most cases nothing is left, and removing it shows that.  A
    process that does not die waits for a FUSE server that does not answer; `abort` frees it.
    StuckError if there are processes left all the same.
    """
    start, delay = trio.current_time(), 0.001
    with trio.move_on_after(_KILL_SECONDS, shield=True) as in_time:
        # cgroup v1 has no event to wait for.
        while not await trio.to_thread.run_sync(cgroup.remove):
            cgroup.kill()
            if abort is not None and trio.current_time() > start + _ABORT_SECONDS:
                abort()
            await trio.sleep(delay)
            delay = min(2 * delay, 0.1)
    if in_time.cancelled_caught:
        _log.error("cgroup %s: processes survive SIGKILL for %d s", cgroup.group, _KILL_SECONDS)
        raise StuckError


async def _kill(process: trio.Process) -> None:
    process.kill()
    await process.wait()


def _out_of_memory(limits: CgroupLimits) -> BuildError:
    """The kernel kills at the limit of the build, and also when the host itself has no more."""
    limit = "no limit of its own" if limits.memory is None else f"a limit of {limits.memory} bytes"
    message = f"the build was killed for want of memory; it has {limit}"
    return BuildError("out_of_memory", message, limit=limits.memory)


def _start_error(layout: Layout) -> CupolaError:
    """Why runc could not start the container: the build's fault if its program cannot be run."""
    messages = []
    for line in layout.runc_log.read_text(errors="replace").splitlines():
        try:
            messages.append(str(json.loads(line)["msg"]))
        except (ValueError, KeyError, TypeError):
            messages.append(line)
    for message in messages:
        if found := _CANNOT_EXECUTE.search(message):
            reason = found["reason"].rpartition(": ")[2]
            missing = "no such file" in reason or "not found" in reason
            return BuildError(
                "build_failed",
                f"cannot execute {found['program']}: {reason}",
                exit_code=127 if missing else 126,
                log_tail=[],
            )
    _log.error("build %s: runc failed: %s", layout.build_id, " | ".join(messages)[:2000])
    return infrastructure(
        "runc could not start the sandbox; the daemon's log says why", retryable=True
    )

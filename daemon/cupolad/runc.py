"""The fourth step: runs a bundle with runc, and ends it whatever happens.

runc only makes the container (`runc create`), which then has the daemon's own pipes and /dev/null
and costs no second process.  Who starts runc, and learns how the container ended, is a launcher's
business.  A stopped container is nothing but its cgroup and runc's record of it, so runc is not
started once more to delete it.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import trio

from cupola.errors import BuildError, CupolaError, infrastructure
from cupola.messages import BuildUsage
from cupolad import events
from cupolad.host import files
from cupolad.host.cgroups import Cgroup, CgroupLimits
from cupolad.launch import Launcher, NotStartedError, Order
from cupolad.layout import Layout
from cupolad.logs import BuildLog
from cupolad.watch import RunLimits, Watch, cancelled, timed_out

ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "GOMAXPROCS": "1", "LANG": "C"}
"""All that runc's own process gets. One Go thread starts a container faster than several."""

_CANNOT_EXECUTE: Final = re.compile(r'exec: "(?P<program>(?:[^"\\]|\\.)*)": (?P<reason>[^"]+)$')


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be run, besides the bundle."""

    title: str
    """A line for administrators."""
    cgroup: Cgroup
    group_limits: CgroupLimits
    limits: RunLimits
    owner: int
    """The host's id of the build's user."""


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
        launcher: Launcher,
        job: Job,
        layout: Layout,
        log: BuildLog,
        mount: Mount,
    ) -> Exit:
        """Run the bundle of `layout` to its end; BuildError if a limit ended it.

        Without `mount` the build cannot go on.  When this returns or raises, no process of the
        build is left, unless it raises StuckError.
        """
        order = self._order(job, layout, mount)
        cgroup = order.cgroup
        try:
            async with launcher.launched(order) as container:
                started = trio.current_time()
                watch = Watch(cgroup, job.limits, log)
                ending = await watch.until_end(container, mount.failed)
                usage = BuildUsage(
                    wall_us=int((trio.current_time() - started) * 1e6),
                    cpu_us=cgroup.cpu_us(),
                    memory_peak=cgroup.memory_peak(),
                )
                out_of_memory = cgroup.ran_out_of_memory()
        except NotStartedError as error:
            raise (cancelled() if error.interrupted else _start_error(layout)) from None
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self.forget, layout.build_id)
        if ending is None:
            raise infrastructure("it is not known how the build ended", retryable=True)
        if out_of_memory or ending.cause == "memory":
            raise _out_of_memory(job.group_limits)
        if ending.cause == "time":
            raise timed_out(job.limits.wall or 0)
        if ending.cause == "administrator":
            raise cancelled()
        return Exit(ending.code, ending.signal, usage)

    def _order(self, job: Job, layout: Layout, mount: Mount) -> Order:
        """What the launcher has to know."""
        return Order(
            build_id=layout.build_id,
            title=job.title,
            create=[
                self.binary,
                "--root", str(self.root),
                "--log", str(layout.runc_log),
                "--log-format", "json",
                "create",
                "--pid-file", str(layout.pid_file),
                "--bundle", str(layout.bundle),
                layout.build_id,
            ],
            environment=ENVIRONMENT,
            directory=layout.bundle,
            pid_file=layout.pid_file,
            start_fifo=self.root / layout.build_id / "exec.fifo",
            owner=job.owner,
            cgroup=job.cgroup,
            limits=job.group_limits,
            seconds=job.limits.wall,
            abort=mount.abort,
        )  # fmt: skip

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


class Mount(Protocol):
    """What a build reads its inputs through."""

    async def failed(self) -> None:
        """Return when it has failed."""
        ...

    def abort(self) -> None:
        """Fail every access, pending or future."""
        ...


def _out_of_memory(limits: CgroupLimits) -> BuildError:
    """The kernel kills at the limit of the build, and also when the host itself has no more."""
    limit = "no limit of its own" if limits.memory is None else f"a limit of {limits.memory} bytes"
    message = f"the build was killed for want of memory; it has {limit}"
    return BuildError("out_of_memory", message, limit=limits.memory)


def _start_error(layout: Layout) -> CupolaError:
    """Why runc could not start the container: the build's fault if its program cannot be run."""
    messages = []
    log = layout.runc_log.read_text(errors="replace") if layout.runc_log.exists() else ""
    for line in log.splitlines():
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
    events.RUNC_FAILED.tell(build_id=layout.build_id, reason=" | ".join(messages))
    return infrastructure(
        "runc could not start the sandbox; the daemon's log says why", retryable=True
    )

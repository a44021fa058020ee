"""Containers as transient units of systemd's: `cupola-build-<id>.service` in `cupola-builds.slice`.

Process 1 starts them, so a build inherits nothing of the daemon's own restrictions, has its limits,
result and journal where administrators look for them, and can be stopped by `systemctl`.

The unit's command enters the daemon's mount namespace, where the build's inputs are mounted, and
makes the container there; systemd takes its first process for the unit's main one (it is told by
the PID file), so it learns the true exit status.  The program begins only after that: systemd
would not accept a main process that has ended already.

Two FIFOs in the bundle connect unit and daemon.  On `events` come lines:

    started                      systemd has the main process
    stop                         somebody has sent the unit a signal that asks it to end
    ended RESULT HOW STATUS      the main process has ended; the words are those of systemd.exec(5)

At `gate` the unit then waits, so that its cgroup stays until its counters have been read.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import trio

from cupola.errors import infrastructure
from cupolad.host.cgroups import LEAF, Cgroup, Hierarchies
from cupolad.launch.containers import Ending, NotStartedError, Order
from cupolad.launch.ending import end, repeat, start
from cupolad.launch.streams import Output, Pipe
from cupolad.launch.systemd import Systemd, unit_of

_SLICE: Final = "cupola-builds.slice"
_SLICE_PATH: Final = f"cupola.slice/{_SLICE}"

_START_SECONDS: Final = 60
_END_SECONDS: Final = 10
_GONE_SECONDS: Final = 5
_STOP_SECONDS: Final = 1
_READ_SIZE: Final = 4096

_ROOM_FOR_START: Final = 64
"""Tasks above the build's own limit: runc's threads, which are in the unit, too."""

_STEPS: Final = Path(__file__).with_name("unit.sh")

_NOT_FOR_RUNC: Final = ["INVOCATION_ID", "JOURNAL_STREAM", "NOTIFY_SOCKET", "SYSTEMD_EXEC_PID"]


class UnitLauncher:
    """Starts containers by `systemd`, to see the mounts of this process."""

    def __init__(self, hierarchies: Hierarchies, systemd: Systemd) -> None:
        self._hierarchies, self._systemd = hierarchies, systemd
        self.parent = f"{systemd.root.rstrip('/')}/{_SLICE_PATH}"

    def cgroup(self, build_id: str) -> Cgroup:
        """The cgroup that a build will have."""
        return Cgroup(self._hierarchies, f"{self.parent}/{unit_of(build_id)}")

    @asynccontextmanager
    async def launched(self, order: Order) -> AsyncIterator[UnitContainer]:
        """The container, for the length of the block; see `Launcher`."""
        container = None
        with contextlib.closing(_Events(order.directory)) as events:
            try:
                container = await self._create(order, events)
                order.cgroup.watch_memory()
                await start(order.start_fifo, container.ended)
                yield container
            finally:
                await self._end(order, events)
                if container is not None:
                    container.close()

    async def stop_all(self) -> int:
        """Stop every unit of a build."""
        return await self._systemd.stop_builds()

    async def _create(self, order: Order, events: _Events) -> UnitContainer:
        """Make the container; never interrupted, so that nothing starts when nobody expects it."""
        unit, properties = unit_of(order.build_id), self._properties(order)
        with Pipe(order.owner) as out, Pipe(order.owner) as err:
            with trio.move_on_after(_START_SECONDS, shield=True):
                await self._systemd.start(unit, properties, out.writer, err.writer)
                events.expected = True
                await events.started()
                return UnitContainer(events, out.output, err.output)
            raise infrastructure(
                f"systemd did not start the build within {_START_SECONDS} s", retryable=True
            )

    async def _end(self, order: Order, events: _Events) -> None:
        """Leave nothing: the container is killed, systemd ends its unit, and the rest is ours."""
        cgroup = order.cgroup

        def is_empty() -> bool:
            return not cgroup.processes(LEAF)

        await repeat(is_empty, cgroup.kill_container, _END_SECONDS, order.abort)
        if events.expected:
            with trio.move_on_after(_END_SECONDS, shield=True):
                await events.ended()
        events.open_gate()
        await repeat(lambda: not cgroup.processes(), lambda: None, _GONE_SECONDS)
        await end(cgroup, order.abort)

    def _properties(self, order: Order) -> dict[str, Any]:
        """Of the unit; see systemd.service(5) and systemd.resource-control(5)."""
        limits = order.limits
        directory = str(order.directory)
        leaf = ""
        if self._hierarchies.is_v2:
            leaf = str(self._hierarchies.unified) + order.cgroup.group + "/runtime"
        enter = ["/usr/bin/nsenter", f"--mount=/proc/{os.getpid()}/ns/mnt", "--"]
        properties: dict[str, Any] = {
            "Description": order.title,
            "Documentation": ["man:cupola(1)"],
            "Slice": _SLICE,
            "Type": "forking",
            "PIDFile": str(order.pid_file),
            "ExecStart": [_step("start", directory, leaf, *order.create, by=enter)],
            "ExecStartPost": [_step("started", directory)],
            "ExecStopPost": [_step("ended", directory)],
            "Environment": [f"{name}={value}" for name, value in order.environment.items()],
            "UnsetEnvironment": _NOT_FOR_RUNC,
            "TimeoutStartUSec": _START_SECONDS * 1_000_000,
            "TimeoutStopUSec": _STOP_SECONDS * 1_000_000,
            "KillSignal": int(signal.SIGKILL),
            "CollectMode": "inactive-or-failed",
            "Delegate": True,
            "OOMPolicy": "continue",
            "CPUAccounting": True,
            "MemoryAccounting": True,
            "TasksAccounting": True,
        }
        if order.seconds is not None:
            properties["RuntimeMaxUSec"] = int(order.seconds * 1e6)
        if limits.memory is not None:
            properties |= {"MemoryMax": limits.memory, "MemorySwapMax": 0}
        if limits.processes is not None:
            properties["TasksMax"] = limits.processes + _ROOM_FOR_START
        if limits.cpus is not None:
            properties["CPUQuotaPerSecUSec"] = int(limits.cpus * 1e6)
        if limits.cpu_weight is not None:
            properties["CPUWeight"] = limits.cpu_weight
        if limits.io_weight is not None:
            properties["IOWeight"] = limits.io_weight
        return properties


class UnitContainer:
    """A container that systemd has started."""

    def __init__(self, events: _Events, stdout: Output, stderr: Output) -> None:
        self._events = events
        self.stdout, self.stderr = stdout, stderr

    async def ended(self) -> Ending:
        """Wait until systemd has seen the end of its first process; how it was."""
        return await self._events.ended()

    async def interrupted(self) -> None:
        """Return when somebody wants the unit to end."""
        await self._events.stop.wait()

    def close(self) -> None:
        """Close its output."""
        self.stdout.close()
        self.stderr.close()


class _Events:
    """The daemon's side of the two FIFOs; any number of tasks may wait for what comes."""

    def __init__(self, directory: Path) -> None:
        events, gate = directory / "events", directory / "gate"
        for path in (events, gate):
            os.mkfifo(path, 0o600)
        # Opened for writing as well, they never come to an end of file.
        self._events = Output(os.open(events, os.O_RDWR | os.O_CLOEXEC))
        self._gate = os.open(gate, os.O_RDWR | os.O_CLOEXEC)
        self._reading = trio.Lock()
        self._unread = b""
        self.expected = False
        """Whether there is a unit that will tell of its end."""
        self._started = False
        self._ending: Ending | None = None
        self._result = ""
        self.stop = trio.Event()

    def close(self) -> None:
        """Close both."""
        self._events.close()
        os.close(self._gate)

    def open_gate(self) -> None:
        """Let the unit go."""
        os.write(self._gate, b"\n")

    async def started(self) -> None:
        """Return when the main process waits to be started; NotStartedError if there is none."""
        while not self._started:
            if self._ending is not None:
                raise NotStartedError(interrupted=self._result in ("signal", "success"))
            await self._read()

    async def ended(self) -> Ending:
        """Return when the main process has ended; how it did."""
        while self._ending is None:
            await self._read()
        return self._ending

    async def _read(self) -> None:
        """Take in the next lines, unless somebody else does; then return when he has."""
        if self._reading.locked():
            async with self._reading:
                return
        async with self._reading:
            *lines, self._unread = (self._unread + await self._events.receive(_READ_SIZE)).split(
                b"\n"
            )
        for line in lines:
            match line.decode().split():
                case ["started"]:
                    self._started = True
                case ["stop"]:
                    self.stop.set()
                case ["ended", *words]:
                    self._result = words[0]
                    self._ending = _ending(*words)


def _ending(result: str, how: str = "", status: str = "") -> Ending:
    """What systemd's words mean."""
    if how == "exited" and status.isdecimal():
        return Ending(int(status), None, "time" if result == "timeout" else "itself")
    number = _signal_number(status)
    if result == "timeout":
        return Ending(None, number, "time")
    if result == "oom-kill":
        return Ending(None, number, "memory")
    # Nothing in a container can send its first process this signal.
    return Ending(None, number, "administrator" if number == signal.SIGKILL else "itself")


def _signal_number(name: str) -> int:
    """The number of a signal that systemd names without its SIG; SIGKILL if it says nothing."""
    base, plus, offset = name.partition("+")
    number = getattr(signal, f"SIG{base}", signal.SIGKILL)
    return int(number) + (int(offset) if plus else 0)


def _step(*words: str, by: Sequence[str] = ()) -> list[Any]:
    """The command of a step, for D-Bus, started `by` another; nothing in it is expanded."""
    command = [word.replace("$", "$$") for word in (*by, "/bin/sh", str(_STEPS), *words)]
    # The commands with flags (ExecStartEx) would be lost when systemd is reloaded.
    return [command[0], command, False]

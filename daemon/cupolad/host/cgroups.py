"""Control groups: one group a build, which the daemon owns, limits, reads and kills.

Layout below each hierarchy's root, the same for cgroup v2, v1 and the hybrid of both:

    cupola-<instance>/          one daemon's builds; removed when the daemon ends
        <build id>/             the build's limits
            container/          made and entered by runc, with the same limits; what is counted

or, where systemd makes a unit of each build, `cupola-build-<id>.service/container/` in its slice.
What a build is, and what its limits should be, is not known here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LEAF: Final = "container"
_V2: Final = "cgroup2"
_V1_HIERARCHIES: Final = frozenset(
    "blkio cpu cpuacct cpuset devices freezer hugetlb memory misc net_cls net_prio perf_event pids"
    " rdma systemd".split()
)
_WANTED: Final = ("memory", "pids", "cpu", "cpuacct", "freezer")


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """What all processes of a group may use together; None where there is no limit."""

    memory: int | None = None
    """Bytes, tmpfs included; swap is not granted on top."""
    processes: int | None = None
    cpus: float | None = None
    """Processors' worth of time."""
    cpu_weight: int | None = None
    """Share of processor time when there is not enough, 1 to 10,000; the kernel's default is 100."""
    io_weight: int | None = None
    """The same for disks, where their scheduler can do it."""


class Hierarchies:
    """Where the kernel's cgroup hierarchies are mounted.

    `by_controller` maps a v1 controller, or `cgroup2` for the unified hierarchy, to its mount.
    """

    def __init__(self, by_controller: Mapping[str, Path]) -> None:
        self.by_controller = dict(by_controller)
        self.unified = self.by_controller.get(_V2)
        self.is_v2 = self.unified is not None and "memory" not in self.by_controller

    @classmethod
    def detect(cls, mountinfo: str | None = None) -> Hierarchies:
        """Read the mounts of this process; OSError if no cgroup hierarchy is mounted."""
        if mountinfo is None:
            mountinfo = Path("/proc/self/mountinfo").read_text()
        found: dict[str, Path] = {}
        for line in mountinfo.splitlines():
            left, _, right = line.partition(" - ")
            mount, (fstype, _, options) = Path(left.split()[4]), right.split()[:3]
            if fstype == "cgroup2":
                found.setdefault(_V2, mount)
            elif fstype == "cgroup":
                for option in options.split(","):
                    if option.removeprefix("name=") in _V1_HIERARCHIES:
                        found.setdefault(option.removeprefix("name="), mount)
        if not found:
            raise OSError(errno.ENOENT, "no cgroup hierarchy is mounted", "/sys/fs/cgroup")
        return cls(found)

    def directories(self, path: str) -> Iterator[Path]:
        """The directory of group `path` in every hierarchy, whether it exists or not."""
        for mount in dict.fromkeys(self.by_controller.values()):
            yield mount / path.lstrip("/")


@dataclass(slots=True)
class Cgroup:
    """One build's group; `path` is what runc is told, with the leaf that runc makes."""

    hierarchies: Hierarchies
    group: str
    oom_events: int | None = None
    """v1: a descriptor that becomes readable when the container has run out of memory."""

    @property
    def path(self) -> str:
        """The cgroup of the container."""
        return f"{self.group}/{LEAF}"

    def _file(self, controller: str, name: str) -> Path:
        return self._directory(controller) / name

    def _counter(self, controller: str, name: str) -> Path:
        return self._directory(controller) / LEAF / name

    def _directory(self, controller: str) -> Path:
        mounts = self.hierarchies.by_controller
        mount = mounts[_V2] if self.hierarchies.is_v2 else mounts[controller]
        return mount / self.group.lstrip("/")

    def create(self, limits: CgroupLimits) -> None:
        """Make the group and set its limits."""
        if self.hierarchies.is_v2:
            self._create_v2(limits)
        else:
            self._create_v1(limits)

    def _create_v2(self, limits: CgroupLimits) -> None:
        assert self.hierarchies.unified is not None
        current = self.hierarchies.unified
        for component in self.group.lstrip("/").split("/"):
            (current / "cgroup.subtree_control").write_text("+memory +pids +cpu")
            current = current / component
            current.mkdir(exist_ok=True)
        if limits.memory is not None:
            (current / "memory.max").write_text(str(limits.memory))
            with contextlib.suppress(FileNotFoundError):  # a kernel without swap accounting
                (current / "memory.swap.max").write_text("0")
        if limits.processes is not None:
            (current / "pids.max").write_text(str(limits.processes))
        if limits.cpus is not None:
            (current / "cpu.max").write_text(f"{int(limits.cpus * 100_000)} 100000")
        if limits.cpu_weight is not None:
            (current / "cpu.weight").write_text(str(limits.cpu_weight))
        if limits.io_weight is not None:
            with contextlib.suppress(FileNotFoundError):  # no scheduler that weighs
                (current / "io.bfq.weight").write_text(str(min(limits.io_weight, 1000)))

    def _create_v1(self, limits: CgroupLimits) -> None:
        mounts = self.hierarchies.by_controller
        for mount in {mounts[c] for c in (*_WANTED, _V2) if c in mounts}:
            (mount / self.group.lstrip("/")).mkdir(parents=True, exist_ok=True)
        if limits.memory is not None:
            self._file("memory", "memory.limit_in_bytes").write_text(str(limits.memory))
            with contextlib.suppress(FileNotFoundError):  # a kernel without swap accounting
                self._file("memory", "memory.memsw.limit_in_bytes").write_text(str(limits.memory))
        if limits.processes is not None:
            self._file("pids", "pids.max").write_text(str(limits.processes))
        if limits.cpus is not None:
            self._file("cpu", "cpu.cfs_period_us").write_text("100000")
            self._file("cpu", "cpu.cfs_quota_us").write_text(str(int(limits.cpus * 100_000)))
        if limits.cpu_weight is not None:
            shares = max(2, limits.cpu_weight * 1024 // 100)
            self._file("cpu", "cpu.shares").write_text(str(shares))
        if limits.io_weight is not None:
            with contextlib.suppress(FileNotFoundError, KeyError):  # no scheduler that weighs
                weight = str(min(limits.io_weight, 1000))
                self._file("blkio", "blkio.bfq.weight").write_text(weight)

    def watch_memory(self) -> None:
        """Let all of the container end when it runs out of memory: once it is made, not started.

        v2 does so by itself; v1 tells by `oom_events`, and the rest is the caller's.
        """
        if self.hierarchies.is_v2:
            self._counter("memory", "memory.oom.group").write_text("1")
        else:
            self.oom_events = self._subscribe_to_oom()

    def _subscribe_to_oom(self) -> int:
        """An eventfd that the kernel signals on each OOM (Documentation/cgroup-v1/memory.rst)."""
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            control = self._counter("memory", "memory.oom_control").open("rb")
            with control:
                self._counter("memory", "cgroup.event_control").write_text(
                    f"{event} {control.fileno()}"
                )
        except BaseException:
            os.close(event)
            raise
        return event

    def ran_out_of_memory(self) -> bool:
        """Whether the container wanted more memory than it may have. Ask before `remove`."""
        if self.oom_events is not None:
            with contextlib.suppress(BlockingIOError):
                return os.eventfd_read(self.oom_events) > 0
        # v1 counts as well, also what happened before it was asked to tell.
        name = "memory.events" if self.hierarchies.is_v2 else "memory.oom_control"
        return _keyed(self._counter("memory", name), "oom_kill") > 0

    def memory_peak(self) -> int:
        """The most memory ever in use, in bytes; 0 where the kernel does not tell."""
        name = "memory.peak" if self.hierarchies.is_v2 else "memory.max_usage_in_bytes"
        return int(_read(self._counter("memory", name)) or 0)

    def cpu_us(self) -> int:
        """Processor time used, in microseconds."""
        if self.hierarchies.is_v2:
            return _keyed(self._counter("cpu", "cpu.stat"), "usage_usec")
        return int(_read(self._counter("cpuacct", "cpuacct.usage")) or 0) // 1000

    def processes(self, *leaves: str) -> set[int]:
        """The ids of all processes in the group, or in these of its leaves, in whatever hierarchy."""
        return {
            int(pid)
            for directory in self.hierarchies.directories(self.group)
            for group in map(directory.joinpath, leaves or _groups(directory))
            for pid in _read(group / "cgroup.procs").split()
        }

    def kill(self) -> None:
        """Send SIGKILL to every process of the group; they may take a moment to be gone."""
        self._kill(self.group)

    def kill_container(self) -> None:
        """Send SIGKILL to the processes of the build, but not to what started them."""
        self._kill(self.path, LEAF)

    def _kill(self, group: str, *leaves: str) -> None:
        if self.hierarchies.unified is not None:
            killer = self.hierarchies.unified / group.lstrip("/") / "cgroup.kill"
            with contextlib.suppress(OSError):  # it is not there yet, or a kernel before 5.14
                killer.write_text("1")
        if not self.processes(*leaves):
            return
        with self._frozen():
            for pid in self.processes(*leaves):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    @contextlib.contextmanager
    def _frozen(self) -> Iterator[None]:
        """Keep the group from forking meanwhile, where a freezer controller is mounted."""
        state = None
        if "freezer" in self.hierarchies.by_controller and not self.hierarchies.is_v2:
            state = self._file("freezer", "freezer.state")
        with contextlib.suppress(OSError):
            if state is not None:
                state.write_text("FROZEN")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if state is not None:
                    state.write_text("THAWED")

    def remove(self) -> bool:
        """Remove the group; False if a process is still in it. Removing it twice is fine."""
        for directory in self.hierarchies.directories(self.group):
            for group in map(directory.joinpath, _groups(directory)):
                try:
                    group.rmdir()
                except FileNotFoundError:
                    continue
                except OSError as error:
                    if error.errno == errno.EBUSY:
                        return False
                    raise
        if self.oom_events is not None:
            os.close(self.oom_events)
            self.oom_events = None
        return True


def _groups(directory: Path) -> list[str]:
    """What is below a build's directory, and the directory itself, which comes last."""
    try:
        return [*(entry.name for entry in os.scandir(directory) if entry.is_dir()), "."]
    except OSError:
        return ["."]


def children(hierarchies: Hierarchies, parent: str) -> set[str]:
    """The names of the groups directly below `parent`, in whatever hierarchy."""
    return {
        entry.name
        for directory in hierarchies.directories(parent)
        if directory.is_dir()
        for entry in directory.iterdir()
        if entry.is_dir()
    }


def _read(path: Path) -> str:
    """The text of a cgroup file; nothing if the group is gone (ENOENT, or ENODEV in between)."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _keyed(path: Path, key: str) -> int:
    """The number after `key` in a cgroup file of such lines; 0 if there is none."""
    for line in _read(path).splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return 0

"""What a launcher is told, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from cupolad.host.cgroups import Cgroup, CgroupLimits
from cupolad.launch.streams import Output

Cause = Literal["itself", "memory", "time", "administrator"]


@dataclass(frozen=True, slots=True)
class Order:
    """A container to be started."""

    build_id: str
    title: str
    """A line for administrators."""
    create: Sequence[str]
    """The command that makes the container; its first process then waits at `start_fifo`."""
    environment: Mapping[str, str]
    """All that the command gets."""
    directory: Path
    """Of the build; only root can reach it."""
    pid_file: Path
    """Where the command writes the id of the container's first process."""
    start_fifo: Path
    """The container's program starts when this is opened and read."""
    owner: int
    """The host's id of the build's user."""
    cgroup: Cgroup
    limits: CgroupLimits
    seconds: float | None
    """How long it may run; the launcher need not see to it."""
    abort: Callable[[], None]
    """Frees processes that do not die, because they wait for what the daemon serves."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a container's first process ended: one of the two is None."""

    code: int | None
    signal: int | None
    cause: Cause = "itself"
    """Whose doing it was, as far as the launcher can tell."""


class NotStartedError(Exception):
    """The command that makes the container failed; its log says why, unless it was ended."""

    def __init__(self, *, interrupted: bool = False) -> None:
        super().__init__()
        self.interrupted = interrupted
        """Whether somebody other than the daemon has ended it."""


class Container(Protocol):
    """A running container."""

    stdout: Output
    stderr: Output

    async def ended(self) -> Ending:
        """Return when its first process has ended, and with it all the others."""
        ...

    async def interrupted(self) -> None:
        """Return when somebody other than the daemon wants it to end."""
        ...


class Launcher(Protocol):
    """A way to start containers."""

    parent: str
    """The cgroup below which each has its own."""

    def cgroup(self, build_id: str) -> Cgroup:
        """The cgroup that a build will have."""
        ...

    def launched(self, order: Order) -> AbstractAsyncContextManager[Container]:
        """The container, for the length of the block.

        When the block is left, whatever the reason, no process of the container is left and no
        cgroup; StuckError if that cannot be had.  NotStartedError if there is no container.
        """
        ...

    async def stop_all(self) -> int:
        """Stop what another daemon has left, as far as cgroups do not tell; how much it was."""
        ...

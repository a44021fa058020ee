"""What a daemon stands on: taken step by step at the start, given back in reverse at the end."""

from __future__ import annotations

import platform
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from cupolad import ingest, inputs, seccomp, startup
from cupolad.build import Places
from cupolad.config import Config
from cupolad.host.cgroups import Hierarchies
from cupolad.launch import Launcher, systemd
from cupolad.recovery import recover
from cupolad.runc import Runtime
from cupolad.startup import Options, StartError
from cupolad.store import Store
from cupolad.workers.pool import WorkerPool
from cupolad.workers.process import ForkServer

_ROLES: Final = (inputs.SERVER, inputs.BINDER, ingest.ROLE, systemd.ROLE)


@dataclass(frozen=True, slots=True)
class Ground:
    """A machine that is checked, and free of what earlier daemons have left."""

    machine: str
    """The kernel's name for the processor."""
    places: Places
    runtime: Runtime
    launcher: Launcher
    fork_server: ForkServer
    unit_starters: WorkerPool


@asynccontextmanager
async def prepared(config: Config, options: Options) -> AsyncIterator[Ground]:
    """The ground, for the length of the block; StartError if the machine is not fit for it."""
    async with AsyncExitStack() as stack:
        startup.prepare_process()
        startup.make_directories(options)
        stack.enter_context(startup.locked(options.state))
        places = startup.enter_own_view(config, options)
        machine, hierarchies = _check_machine()
        group = stack.enter_context(startup.cgroup_parent(hierarchies, options.state))
        runtime = startup.find_runtime(config, options)
        fork_server = stack.enter_context(ForkServer(_ROLES))
        unit_starters = WorkerPool(fork_server, systemd.ROLE, spare=0, reuse=True)
        launcher = await startup.find_launcher(config, hierarchies, unit_starters, group)
        await recover(places, runtime, launcher, hierarchies, group)
        try:
            Store.create(options.state)
        except (OSError, ValueError) as error:
            raise StartError(f"the store in {options.state} cannot be used: {error}") from error
        yield Ground(machine, places, runtime, launcher, fork_server, unit_starters)


def _check_machine() -> tuple[str, Hierarchies]:
    """The kind of machine, for which there is a filter of system calls, and its cgroups."""
    machine = platform.machine()
    try:
        seccomp.profile(machine)
        return machine, Hierarchies.detect()
    except (OSError, ValueError) as error:
        raise StartError(f"this machine cannot run builds: {error}") from error

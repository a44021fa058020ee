"""Removes what a daemon that was killed has left, before the next one serves anybody."""

from __future__ import annotations

from cupolad import bundle, events
from cupolad.build import Places
from cupolad.host.cgroups import Cgroup, Hierarchies, children
from cupolad.launch import Launcher, StuckError, end
from cupolad.runc import Runtime
from cupolad.startup import StartError


async def recover(
    places: Places, runtime: Runtime, launcher: Launcher, hierarchies: Hierarchies, group: str
) -> None:
    """Remove units, processes, cgroups, records of runc, mounts and bundles of former builds.

    Besides `launcher`, another one may have been in use before, with its cgroups below `group`.
    """
    units = await launcher.stop_all()
    groups = 0
    for parent in {group, launcher.parent}:
        for name in children(hierarchies, parent):
            await _empty(Cgroup(hierarchies, f"{parent}/{name}"))
            groups += 1
    forgotten = runtime.sweep()
    removed = bundle.sweep(places.bundles)
    if units or groups or forgotten or removed:
        events.RECOVERED.tell(units=units, cgroups=groups, containers=forgotten, bundles=removed)


async def _empty(cgroup: Cgroup) -> None:
    try:
        await end(cgroup)
    except StuckError:
        raise StartError(
            f"processes in the cgroup {cgroup.group}, which an earlier daemon left, cannot be"
            " killed; restart the machine"
        ) from None

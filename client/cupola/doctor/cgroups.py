"""Whether the kernel's control groups can hold builds to their limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cupola.doctor.finding import Finding, ok, problem, together
from cupola.doctor.system import System

NEEDED_V2: Final[tuple[str, ...]] = ("memory", "pids", "cpu")
NEEDED_V1: Final[tuple[str, ...]] = ("memory", "pids", "cpu", "cpuacct")
_V2: Final = "cgroup2"


@dataclass(frozen=True, slots=True)
class _Hierarchy:
    """Where one hierarchy is mounted, and what it controls."""

    place: str
    controllers: frozenset[str]
    read_only: bool


def check_cgroups(system: System) -> Finding:
    """Whether the controllers that the daemon needs are where it looks for them."""
    unified, v1 = _hierarchies(system)
    if unified is None and not v1:
        return problem(
            "no cgroup hierarchy is mounted",
            "start the machine with systemd, or `sudo mount -t cgroup2 none /sys/fs/cgroup`",
        )
    # As the daemon decides: memory is where the rest is looked for.
    if unified is not None and "memory" not in v1:
        places = {name: unified for name in NEEDED_V2 if name in unified.controllers}
        missing = [name for name in NEEDED_V2 if name not in places]
        layout = "cgroup v2"
    else:
        places = {name: v1[name] for name in NEEDED_V1 if name in v1}
        missing = [name for name in NEEDED_V1 if name not in places]
        layout = "cgroup v1" if unified is None else "cgroup v1 (hybrid)"
    complaints = [_missing(system, name, layout, v1) for name in missing]
    where = ", ".join(f"{name} at {place.place}" for name, place in places.items())
    return together([*complaints, *_read_only(places)], ok(f"{layout}: {where}"))


def _hierarchies(system: System) -> tuple[_Hierarchy | None, dict[str, _Hierarchy]]:
    """The unified hierarchy, and those of cgroup v1 by controller."""
    unified: _Hierarchy | None = None
    v1: dict[str, _Hierarchy] = {}
    for line in system.read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        _, _, _, _, place, mount_options, *_ = left.split()
        kind, _, options = right.split()[:3]
        read_only = "ro" in (*mount_options.split(","), *options.split(","))
        if kind == _V2 and unified is None:
            controllers = system.read(f"{place}/cgroup.controllers").split()
            unified = _Hierarchy(place, frozenset(controllers), read_only)
        elif kind == "cgroup":
            for controller in options.split(","):
                v1.setdefault(controller, _Hierarchy(place, frozenset({controller}), read_only))
    return unified, v1


def _missing(system: System, name: str, layout: str, v1: dict[str, _Hierarchy]) -> Finding:
    if name in v1:
        return problem(
            f"{layout} is in use, but the controller {name} is one of cgroup v1",
            "start the machine with `systemd.unified_cgroup_hierarchy=1` on the kernel's command"
            " line",
        )
    if _is_disabled(system, name):
        return problem(
            f"the cgroup controller {name} was switched off when the machine started",
            f"start the machine with `cgroup_enable={name}`, and without `cgroup_disable={name}`,"
            " on the kernel's command line",
        )
    return problem(
        f"{layout} lacks the controller {name}",
        f"start a kernel that has it, or let the container have it: `grep {name} /proc/cgroups`"
        " says whether the kernel does",
    )


def _is_disabled(system: System, name: str) -> bool:
    lines = [line.split() for line in system.read("/proc/cgroups").splitlines()]
    return any(fields[0] == name and fields[-1] == "0" for fields in lines if fields)


def _read_only(places: dict[str, _Hierarchy]) -> Iterator[Finding]:
    for place in dict.fromkeys(h.place for h in places.values() if h.read_only):
        yield problem(
            f"{place} is mounted read-only, so no build can get its limits",
            f"`sudo mount -o remount,rw {place}`, or run cupolad outside of this container",
        )

"""The kernel's version, its machine, and what it was built with.

What the daemon relies on, with the version that brought it: pidfd_open 5.3, waitid on a pidfd 5.4,
openat2 5.6, and mount_setattr 5.12, by which runc makes all of a build's inputs read-only (mounts
with `rro`).  Without cgroup.kill (5.14) builds are killed one process after the other; without
memory.peak (5.19) their use of memory is not told on cgroup v2.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from typing import Final

from cupola.doctor.finding import Finding, ok, problem, unknown, warning
from cupola.doctor.system import System

NEEDED: Final = (5, 12)
WANTED: Final = (5, 14)

MACHINES: Final = ("x86_64", "aarch64")
"""Those that the daemon has a system call filter for."""

_OPTION: Final = re.compile(r"^(?:# )?CONFIG_(\w+)(?:=(\S+)| is not set)$", re.MULTILINE)


def check_kernel(system: System) -> Finding:
    """Whether the kernel is new enough, and of a machine that builds can run on."""
    found = re.match(r"(\d+)\.(\d+)", system.release)
    if found is None:
        return unknown(
            f"the kernel calls itself {system.release!r}, which is no version",
            f"compare what `uname -a` says with {_text(NEEDED)}, the oldest that will do",
        )
    version = (int(found[1]), int(found[2]))
    name = f"Linux {system.release} on {system.machine}"
    if version < NEEDED:
        return problem(
            f"{name} is too old: read-only mounts of whole trees (mount_setattr) need"
            f" {_text(NEEDED)}",
            f"upgrade the kernel to {_text(NEEDED)} or later and restart the machine",
        )
    if system.machine not in MACHINES:
        return problem(
            f"{name}: the daemon has no system call filter for this kind of machine",
            f"use a machine of one of these kinds: {', '.join(MACHINES)}",
        )
    if version < WANTED:
        return warning(
            f"{name} cannot kill a whole cgroup at once (cgroup.kill), so ending a build that"
            " forks quickly takes longer",
            f"upgrade the kernel to {_text(WANTED)} or later and restart the machine",
        )
    return ok(f"{name}; {_text(NEEDED)} or later is needed")


def configuration(system: System) -> Mapping[str, str]:
    """The options that the kernel was built with (`y`, `m`, `n`, …); none if nobody tells."""
    packed = system.path("/proc/config.gz")
    try:
        text = gzip.decompress(packed.read_bytes()).decode(errors="replace")
    except (OSError, EOFError, ValueError):
        try:
            text = system.read(f"/boot/config-{system.release}")
        except OSError:
            return {}
    return {name: value or "n" for name, value in _OPTION.findall(text)}


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"

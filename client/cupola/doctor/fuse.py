"""Whether the kernel serves FUSE, through which builds see their inputs."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from cupola.doctor.finding import Finding, ok, problem, unknown
from cupola.doctor.kernel import configuration
from cupola.doctor.system import System

DEVICE: Final = "/dev/fuse"
_NUMBERS: Final = (10, 229)
"""Major and minor number of the device."""

_LOAD: Final = (
    "`sudo modprobe fuse`, and `fuse` in a file of /etc/modules-load.d for the next start"
)
_MAKE: Final = f"`sudo mknod -m 666 {DEVICE} c 10 229`; a container has to be given the device"


def check_fuse(system: System) -> Finding:
    """Whether the device is there and the kernel answers at it."""
    try:
        status = system.path(DEVICE).stat()
    except FileNotFoundError:
        return _absent(system)
    numbers = (os.major(status.st_rdev), os.minor(status.st_rdev))
    if not stat.S_ISCHR(status.st_mode) or numbers != _NUMBERS:
        return problem(
            f"{DEVICE} is not FUSE's device", f"`sudo mv {DEVICE} {DEVICE}.old`, then {_MAKE}"
        )
    return _opened(system)


def _absent(system: System) -> Finding:
    if _is_loaded(system):
        return problem(f"the kernel has FUSE, but there is no {DEVICE}", _MAKE)
    if configuration(system).get("FUSE_FS") == "n":
        return problem(
            "the kernel was built without FUSE (CONFIG_FUSE_FS)",
            "start a kernel that was built with CONFIG_FUSE_FS",
        )
    return problem(f"there is no {DEVICE}: the module fuse is not loaded", _LOAD)


def _opened(system: System) -> Finding:
    """What opening it says; that makes the kernel load the module, and changes nothing else."""
    try:
        system.open_device(system.path(DEVICE))
    except PermissionError:
        if not system.is_root:
            return _closed_to_user(system)
        return problem(f"root may not open {DEVICE}: this is a container that lacks it", _MAKE)
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.ENXIO):
            return problem(f"{DEVICE} is there, but the kernel has no FUSE", _LOAD)
        raise
    return ok(f"{DEVICE} can be opened")


def _closed_to_user(system: System) -> Finding:
    if _is_loaded(system):
        return ok(f"the kernel has FUSE; {DEVICE} is open to root alone, which is enough")
    return unknown(
        f"{DEVICE} is open to root alone, and the kernel has not loaded FUSE yet",
        "`sudo cupola doctor` tells whether it can",
    )


def _is_loaded(system: System) -> bool:
    return "fuse" in system.read("/proc/filesystems").split()

"""The daemon's own view of the file system: a private mount namespace with a stage in it.

Every mount that cupola makes is made in this namespace.  Nobody else sees it, and when the last
process of the daemon is gone the kernel removes all of it, however the daemon died.

The stage is a small tmpfs whose ancestors everybody may pass.  Root file systems of containers
are put there, because the container's root user, who is nobody to the host, has to reach them,
while the state directory stays closed to all but root.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cupolad.host import kernel

_STAGE_CANDIDATES: Final = ("/mnt", "/media", "/srv", "/opt")
_FUSECTL: Final = "fuse-connections"
"""Below the stage: the control file system of FUSE. The usual place may be read-only."""


def enter_private_namespace() -> None:
    """Leave the host's mount namespace; later mounts of the host still show up here.

    To be called once, before the process has threads.
    """
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", "none", kernel.MS_REC | kernel.MS_SLAVE)


def make_stage(in_use: Iterable[Path], candidates: Iterable[str] = _STAGE_CANDIDATES) -> Path:
    """Mount the stage on a directory that hides nothing `in_use`; return where it is.

    OSError if no candidate will do.
    """
    used = [path.resolve() for path in in_use]
    for candidate in map(Path, candidates):
        if not candidate.is_dir() or candidate.is_symlink():
            continue
        if any(path.is_relative_to(candidate) for path in used):
            continue
        flags = kernel.MS_NOSUID | kernel.MS_NODEV
        kernel.mount("cupola", str(candidate), "tmpfs", flags, "mode=0711,size=64m")
        kernel.mount("none", str(candidate), "none", kernel.MS_PRIVATE)
        _mount_whole_proc(candidate / "proc")
        (candidate / _FUSECTL).mkdir(mode=0o700)
        kernel.mount("fusectl", str(candidate / _FUSECTL), "fusectl", flags | kernel.MS_NOEXEC)
        return candidate
    raise OSError(f"none of {', '.join(candidates)} is free for the daemon's private mount")


def _mount_whole_proc(place: Path) -> None:
    """Mount /proc once more, without what may be mounted over parts of the usual one.

    The kernel lets a user namespace, and so a container, mount /proc only where a whole one is to
    be seen; where systemd protects parts of it from this process there is none.
    """
    place.mkdir(mode=0o700)
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("proc", str(place), "proc", flags)


def mounted_below(directory: Path) -> list[str]:
    """All mount points below `directory` in this namespace, innermost first."""
    prefix = f"{directory}/"
    return sorted((p for p, _ in _mounts() if p.startswith(prefix)), reverse=True)


def detach_below(directory: Path) -> int:
    """Detach every mount below `directory`; return how many there were."""
    mounts = mounted_below(directory)
    for mount in mounts:
        kernel.unmount(mount, kernel.MNT_DETACH)
    return len(mounts)


def device_of(mount_point: str) -> tuple[int, int]:
    """Major and minor number of the file system mounted at `mount_point`, without touching it."""
    for path, (major, minor) in reversed(list(_mounts())):
        if path == mount_point:
            return major, minor
    raise FileNotFoundError(mount_point)


def abort_fuse(stage: Path, minor: int) -> None:
    """Abort the FUSE connection `minor`: every request, pending or future, fails at once."""
    with contextlib.suppress(FileNotFoundError):
        (stage / _FUSECTL / str(minor) / "abort").write_text("1")


def _mounts() -> Iterable[tuple[str, tuple[int, int]]]:
    with Path("/proc/self/mountinfo").open(errors="surrogateescape") as lines:
        for line in lines:
            fields = line.split(" ", 5)
            major, _, minor = fields[2].partition(":")
            yield _unescape(fields[4]), (int(major), int(minor))


def _unescape(path: str) -> str:
    """Undo the octal escapes of mountinfo."""
    if "\\" not in path:
        return path
    raw = os.fsencode(path)
    for octal, byte in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        raw = raw.replace(octal, byte)
    return os.fsdecode(raw)

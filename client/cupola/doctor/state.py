"""Whether the daemon's state directory has room, can be written, and is root's alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cupola.doctor.finding import Finding, ok, problem, together, warning
from cupola.doctor.system import System
from cupola.notation import readable_size

STATE: Final = Path("/var/lib/cupola")

_NO_ROOM: Final = 256 * 1024**2
"""Bytes; less than a single build can take for its log and a few outputs."""
_LITTLE_ROOM: Final = 2 * 1024**3
"""Bytes; about what a compiler with its libraries takes."""
_NO_INODES: Final = 1_000
_LITTLE_INODES: Final = 50_000
"""Files; about as many as the trees of a few compilers have."""


def check_state(system: System) -> Finding:
    """Whether the file system that holds the state directory, or will, is of use."""
    place = next(p for p in (STATE, *STATE.parents) if system.path(p).exists())
    space = system.space(system.path(place))
    complaints = [*_flags(place, space), *_room(place, space), *_trust(system, place)]
    inodes = f" and {space.f_favail:,} files" if space.f_files else ""
    return together(complaints, ok(f"{place} has room for {readable_size(_free(space))}{inodes}"))


def _free(space: os.statvfs_result) -> int:
    return space.f_bavail * space.f_frsize


def _flags(place: Path, space: os.statvfs_result) -> Iterator[Finding]:
    if space.f_flag & os.ST_RDONLY:
        yield problem(
            f"the file system of {place} is read-only, on purpose or after an error of its disk",
            f"see `sudo dmesg | tail` for errors, then"
            f" `sudo mount -o remount,rw $(findmnt -n -o TARGET -T {place})`",
        )
    if space.f_flag & os.ST_NOEXEC:
        yield problem(
            f"the file system of {place} is mounted noexec, and scratch directories lie on it, so"
            " no build can start",
            f"`sudo mount -o remount,exec $(findmnt -n -o TARGET -T {place})`, and the same in"
            " /etc/fstab",
        )


def _room(place: Path, space: os.statvfs_result) -> Iterator[Finding]:
    free = _free(space)
    remedy = f"make room: `sudo du -xh --max-depth=2 {place} | sort -h` says what takes it"
    if free < _LITTLE_ROOM:
        kind = problem if free < _NO_ROOM else warning
        yield kind(f"the file system of {place} has only {readable_size(free)} left", remedy)
    # Some file systems make inodes as they need them, and tell of none.
    if space.f_files and space.f_favail < _LITTLE_INODES:
        kind = problem if space.f_favail < _NO_INODES else warning
        yield kind(
            f"the file system of {place} has room for only {space.f_favail:,} files (inodes)",
            f"remove files: `sudo du -x --inodes --max-depth=2 {place} | sort -n` says where they"
            " are",
        )


def _trust(system: System, place: Path) -> Iterator[Finding]:
    """That somebody else than root could put another state in place of the daemon's."""
    for path in (place, *place.parents):
        status = system.path(path).stat()
        if status.st_uid != system.root_uid:
            owner = system.accounts.user_name(status.st_uid) or status.st_uid
            yield problem(
                f"{path} belongs to {owner}, so the daemon does not trust it",
                f"`sudo chown root: {path}`",
            )
        others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if others and not status.st_mode & stat.S_ISVTX:
            yield problem(
                f"others than root may write {path}, so the daemon does not trust it",
                f"`sudo chmod go-w {path}`",
            )

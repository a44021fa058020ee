"""The system calls that Python's standard library lacks.

Thin: arguments in, OSError out; no policy.  Numbers and structures are those of the kernel's own
headers (`linux/openat2.h`, `linux/mount.h`, `linux/prctl.h`, `linux/fs.h`) and hold for x86-64 and
arm64 alike.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)

_SYS_OPENAT2: Final = 437

RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08

MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
MS_SLAVE: Final = 0x80000

MNT_DETACH: Final = 0x2
UMOUNT_NOFOLLOW: Final = 0x8

CLONE_NEWNS: Final = 0x00020000

_FS_IOC_GETFLAGS: Final = 0x80086601
_FS_IOC_SETFLAGS: Final = 0x40086602
_FS_TOPDIR_FL: Final = 0x00020000

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36


def _check(result: int, what: str | bytes | None = None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        name = os.fsdecode(what) if what is not None else None
        raise OSError(number, os.strerror(number), name)
    return result


def openat2(directory: int, path: bytes, flags: int, mode: int, resolve: int) -> int:
    """Open `path` below the open `directory`; `resolve` limits how the path may lead there."""
    how = ctypes.create_string_buffer(struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve), 24)
    return _check(
        _libc.syscall(_SYS_OPENAT2, directory, ctypes.c_char_p(path), how, ctypes.c_size_t(24)),
        path,
    )


def mount(source: str, target: str, fstype: str, flags: int, options: str = "") -> None:
    """Mount; see mount(2)."""
    _check(
        _libc.mount(
            source.encode(),
            os.fsencode(target),
            fstype.encode(),
            ctypes.c_ulong(flags),
            options.encode(),
        ),
        target,
    )


def unmount(target: str, flags: int = 0) -> None:
    """Unmount, never following a symlink at `target`; see umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags | UMOUNT_NOFOLLOW), target)


def unshare(flags: int) -> None:
    """Leave namespaces; see unshare(2). Call it before the process has threads."""
    _check(_libc.unshare(flags))


def syncfs(descriptor: int) -> None:
    """Write everything of the file system that holds `descriptor` to its device."""
    _check(_libc.syncfs(descriptor))


def spread_subdirectories(directory: Path) -> None:
    """Ask the file system to lay what is made in each subdirectory far apart, if it can.

    ext4 does it for directories with the attribute `T`; see chattr(1).
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = bytearray(ctypes.sizeof(ctypes.c_long))
        fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, flags)
        struct.pack_into("=I", flags, 0, struct.unpack_from("=I", flags)[0] | _FS_TOPDIR_FL)
        fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, flags)
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL):
            raise
    finally:
        os.close(descriptor)


def die_with_parent(signal: int) -> None:
    """Let the kernel send `signal` to this process when its parent thread ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal), 0, 0, 0))


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0))


def keep_freed_memory(size: int) -> None:
    """Let malloc keep up to `size` freed bytes for the next buffer; see mallopt(3).

    By default it returns every large buffer to the kernel, which then clears each page again and
    again: that took more time than everything else together when a large blob came in.
    """
    if hasattr(_libc, "mallopt"):  # the GNU library
        _libc.mallopt(_M_ARENA_MAX, 1)
        _libc.mallopt(_M_MMAP_THRESHOLD, 2 * size)
        _libc.mallopt(_M_TRIM_THRESHOLD, size)

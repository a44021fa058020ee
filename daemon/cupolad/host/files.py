"""The file layer: everything below a directory that a build could have touched, by descriptor.

No path is ever resolved through a symlink, out of its directory or across a mount, and no walk
recurses, so neither a link planted by a build nor 100,000 nested directories can lead it astray.
What the files mean is not known here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from cupolad.host import kernel

_BENEATH: Final = (
    kernel.RESOLVE_BENEATH
    | kernel.RESOLVE_NO_SYMLINKS
    | kernel.RESOLVE_NO_XDEV
    | kernel.RESOLVE_NO_MAGICLINKS
)

_OPEN_LEVELS: Final = 64
"""Directories that are open at once while a tree is removed."""
_NAMES_AT_ONCE: Final = 4096

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags to open a directory itself."""


@contextlib.contextmanager
def opened(descriptor: int) -> Iterator[int]:
    """Close `descriptor` at the end."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_beneath(directory: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Open relative `path` below `directory`; a symlink or mount on the way is an OSError."""
    return kernel.openat2(directory, path, flags, mode, _BENEATH)


def open_directory(path: str | os.PathLike[str]) -> int:
    """Open the directory at a trusted absolute path, whose last component is no symlink."""
    return os.open(path, DIRECTORY)


def make_directories(directory: int, path: bytes, mode: int, owner: int, group: int) -> int:
    """Make `path` and its missing ancestors below `directory`; return it opened.

    Each one that is made gets exactly `mode` and belongs to `owner`:`group`; one that exists is
    left as it is.
    """
    current = os.dup(directory)
    try:
        for component in path.split(b"/"):
            made = True
            try:
                os.mkdir(component, 0o700, dir_fd=current)
            except FileExistsError:
                made = False
            below = open_beneath(current, component, DIRECTORY)
            os.close(current)
            current = below
            if made:
                os.fchown(current, owner, group)
                os.fchmod(current, mode)
    except BaseException:
        os.close(current)
        raise
    return current


def write_new_file(
    directory: int, name: bytes, data: bytes, mode: int, owner: int = -1, group: int = -1
) -> None:
    """Create the file `name` in `directory` with `data`; FileExistsError if the name is taken."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with opened(os.open(name, flags, 0o600, dir_fd=directory)) as descriptor:
        write_all(descriptor, data)
        os.fchown(descriptor, owner, group)
        os.fchmod(descriptor, mode)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data`, however many calls it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_at(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset`."""
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


def remove_tree(parent: int, name: bytes) -> None:
    """Remove `name` in the directory `parent`, with everything below; nothing if it is absent.

    What lies deeper than descriptors should be spent on is lifted to the top of the tree first, so
    the depth of the tree does not matter, and a removal that is cut short leaves one tree of the
    same name.  A mount point below is left in place and is an OSError.
    """
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM):
            raise
    else:
        return
    levels: list[_Level] = []
    try:
        levels.append(_Level.enter(parent, name))
        _empty(levels)
    finally:
        for level in levels:
            os.close(level.descriptor)
    os.rmdir(name, dir_fd=parent)


@dataclass(slots=True)
class _Level:
    """A directory that is being emptied; `directories` are some of those in it."""

    name: bytes
    descriptor: int
    directories: list[bytes] = field(default_factory=list)
    complete: bool = False
    """Whether there is nothing in it but `directories`."""

    @classmethod
    def enter(cls, parent: int, name: bytes) -> _Level:
        """Open a directory."""
        return cls(name, open_beneath(parent, name, DIRECTORY))

    def unlink_files(self) -> None:
        """Unlink what is no directory, and note some of those that are.

        Works on so many names at once, because a build can make any number of them.
        """
        while not self.directories and not self.complete:
            with os.scandir(self.descriptor) as entries:
                some = [
                    (os.fsencode(entry.name), entry.is_dir(follow_symlinks=False))
                    for entry in islice(entries, _NAMES_AT_ONCE)
                ]
            for name, is_directory in some:
                if not is_directory:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=self.descriptor)
            self.directories = [name for name, is_directory in some if is_directory]
            self.complete = len(some) < _NAMES_AT_ONCE


def _empty(levels: list[_Level]) -> None:
    """Remove all below the one level in `levels`, which holds the way down meanwhile."""
    top = levels[0]
    token, lifted = secrets.token_bytes(8).hex().encode(), 0
    while True:
        level = levels[-1]
        level.unlink_files()
        if not level.directories:
            if level is top:
                return
            levels.pop()
            os.close(level.descriptor)
            os.rmdir(level.name, dir_fd=levels[-1].descriptor)
        elif len(levels) < _OPEN_LEVELS:
            levels.append(_Level.enter(level.descriptor, level.directories.pop()))
        else:
            lifted += 1
            fresh = b".%s-%d" % (token, lifted)
            os.rename(
                level.directories.pop(),
                fresh,
                src_dir_fd=level.descriptor,
                dst_dir_fd=top.descriptor,
            )
            top.directories.append(fresh)

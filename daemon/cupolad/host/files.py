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
from typing import Final

from cupolad.host import kernel

_BENEATH: Final = (
    kernel.RESOLVE_BENEATH
    | kernel.RESOLVE_NO_SYMLINKS
    | kernel.RESOLVE_NO_XDEV
    | kernel.RESOLVE_NO_MAGICLINKS
)

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

    Subdirectories are lifted to the top of the tree before they are emptied, so the depth of the
    tree costs neither memory nor descriptors, and a removal that is cut short leaves one tree of
    the same name.  A mount point below is left in place and is an OSError.
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
    with opened(open_beneath(parent, name, DIRECTORY)) as top:
        token, lifted = secrets.token_bytes(8).hex().encode(), 0
        pending = _unlink_files(top)
        while pending:
            child = pending.pop()
            with opened(open_beneath(top, child, DIRECTORY)) as directory:
                for grandchild in _unlink_files(directory):
                    lifted += 1
                    fresh = b".%s-%d" % (token, lifted)
                    os.rename(grandchild, fresh, src_dir_fd=directory, dst_dir_fd=top)
                    pending.append(fresh)
            os.rmdir(child, dir_fd=top)
    os.rmdir(name, dir_fd=parent)


def _unlink_files(directory: int) -> list[bytes]:
    """Unlink all that is no directory in `directory`; the names of those that are."""
    with os.scandir(directory) as entries:
        names = [(os.fsencode(e.name), e.is_dir(follow_symlinks=False)) for e in entries]
    for name, is_directory in names:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
    return [name for name, is_directory in names if is_directory]

"""Opening files of the user's own, however deep they lie, without following symlinks."""

from __future__ import annotations

import errno
import os
from typing import Final

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
IS_SYMLINK: Final = errno.ELOOP
"""What open(2) says of a symlink that it was told not to follow."""

_MAX_PATH: Final = 4095


def open_deep(path: bytes, flags: int) -> int:
    """Open `path`, in steps if it is longer than the kernel takes at once."""
    directory: int | None = None
    try:
        while len(path) > _MAX_PATH:
            cut = path.rindex(b"/", 0, _MAX_PATH)
            below = os.open(path[:cut], DIRECTORY, dir_fd=directory)
            path = path[cut + 1 :]
            if directory is not None:
                os.close(directory)
            directory = below
        return os.open(path, flags, dir_fd=directory)
    finally:
        if directory is not None:
            os.close(directory)


def open_below(directory: int, components: tuple[bytes, ...]) -> int:
    """Open the directory that `components` lead to from the open `directory`; no symlinks."""
    current = os.dup(directory)
    for component in components:
        try:
            below = os.open(component, DIRECTORY, dir_fd=current)
        finally:
            os.close(current)
        current = below
    return current

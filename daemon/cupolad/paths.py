"""Clean sandbox paths as a type, and how they lie to each other.

Every path of a request passes through `SandboxPath` or `HostPath` once; there is no second place
that decides what a path may look like.
"""

from __future__ import annotations

from typing import Final, Self

MAX_PATH: Final = 4095
"""Bytes in the longest path (PATH_MAX of Linux without its NUL)."""

MAX_COMPONENT: Final = 255
"""Bytes in the longest component (NAME_MAX of Linux)."""


def _check_components(path: str) -> None:
    encoded = path.encode()
    if len(encoded) > MAX_PATH:
        raise ValueError(f"must have at most {MAX_PATH} bytes")
    for component in encoded.split(b"/"):
        if component in (b"", b".", b".."):
            raise ValueError("must be clean: no empty component, no '.', no '..'")
        if len(component) > MAX_COMPONENT:
            raise ValueError(f"must have components of at most {MAX_COMPONENT} bytes")
    if "\0" in path:
        raise ValueError("must not hold NUL")


class SandboxPath(str):
    """A clean path relative to the build's root, for example `nix/store`."""

    __slots__ = ()

    def __new__(cls, path: str) -> Self:  # noqa: D102
        if path.startswith("/"):
            raise ValueError("must be relative to the build's root, without a leading slash")
        _check_components(path)
        return super().__new__(cls, path)

    def is_at_or_below(self, other: str) -> bool:
        """Whether this is `other` or lies in it."""
        return self == other or self.startswith(f"{other}/")

    def is_below(self, other: str) -> bool:
        """Whether this lies in `other`."""
        return self.startswith(f"{other}/")

    def overlaps(self, other: str) -> bool:
        """Whether one of the two is the other or lies in it."""
        return self.is_at_or_below(other) or other.startswith(f"{self}/")

    def relative_to(self, other: str) -> str:
        """This path as seen from `other`, which it lies in; empty for `other` itself."""
        return self[len(other) + 1 :]


class HostPath(str):
    """A clean absolute path of the host."""

    __slots__ = ()

    def __new__(cls, path: str) -> Self:  # noqa: D102
        if not path.startswith("/"):
            raise ValueError("must be absolute")
        _check_components(path[1:])
        return super().__new__(cls, path)

"""The checks of the configuration's single values: the value to use, or a ValueError.

The error says what the value must be, as the rest of a sentence.
"""

from __future__ import annotations

from typing import Any

from cupola import framing
from cupolad.paths import HostPath


def count(value: Any) -> int:
    """A whole number above 0."""
    if type(value) is not int or not 1 <= value < 2**63:
        raise ValueError("must be a whole number above 0")
    return value


def count_or_zero(value: Any) -> int:
    """A whole number, or 0 for no limit."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("must be a whole number, 0 or above")
    return value


def frame_bytes(value: Any) -> int:
    """A size that a frame can have."""
    if type(value) is not int or not framing.MIN_FRAME <= value < 2**32:
        raise ValueError(f"must be a whole number, {framing.MIN_FRAME} to 4294967295")
    return value


def seconds(value: Any) -> float:
    """A duration in seconds."""
    if type(value) not in (int, float) or not 0 <= value <= 10 * 365 * 86400:
        raise ValueError("must be a number of seconds, 0 or above")
    return float(value)


def processors(value: Any) -> float:
    """Processors' worth of time."""
    if type(value) not in (int, float) or not (value == 0 or 0.01 <= value <= 4096):
        raise ValueError("must be a number of processors, 0.01 or above, or 0 for no limit")
    return float(value)


def absolute(value: Any) -> str:
    """An absolute path."""
    if type(value) is not str:
        raise ValueError("must be text")
    return HostPath(value)


def program(value: Any) -> str:
    """An absolute path, or a bare name to look up in the usual directories."""
    if type(value) is not str or not value or ("/" in value and not value.startswith("/")):
        raise ValueError("must be an absolute path or a bare name")
    return value


def texts(value: Any) -> tuple[str, ...]:
    """A list of texts."""
    if type(value) is not list or not all(type(item) is str and item for item in value):
        raise ValueError("must be a list of texts")
    return tuple(value)


def host_paths(value: Any) -> tuple[str, ...]:
    """A list of absolute paths."""
    return tuple(HostPath(path) for path in texts(value))


def no_names_yet(value: Any) -> tuple[str, ...]:
    """An empty list."""
    if value != []:
        raise ValueError("must be empty: this version runs no builds with network access")
    return ()


def mode(value: Any) -> str:
    """How inputs are served."""
    if value != "fuse":
        raise ValueError('must be "fuse"')
    return str(value)


def units(value: Any) -> str:
    """Whether builds are units."""
    if value not in ("auto", "never"):
        raise ValueError('must be "auto" or "never"')
    return str(value)


def journal_logs(value: Any) -> str:
    """Whose logs go to the journal."""
    if value not in ("all", "failures", "none"):
        raise ValueError('must be "all", "failures" or "none"')
    return str(value)


def weight(value: Any) -> int:
    """A share, or 0 for the default."""
    if type(value) is not int or not 0 <= value <= 10_000:
        raise ValueError("must be a whole number, 1 to 10000, or 0 to leave it to the system")
    return value

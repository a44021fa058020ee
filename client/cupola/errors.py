"""The errors of cupola: three kinds, split by who is to blame, each with a stable code.

A code is part of the public contract: it travels on the wire, it decides the command's exit
status and users' programs match on it.  The details are plain values (text, integers, bytes,
lists of these) that say where the fault lies; a message never carries a traceback, a path of the
host that the request did not name, or another user's data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar


class CupolaError(Exception):
    """Base of all errors that cupola raises on purpose.

    `code` is the stable word for the kind of error, `message` one sentence for people, `details`
    what a program wants to know (see `docs/protocol.md` for the keys of each code).
    """

    blame: ClassVar[str]
    codes: ClassVar[frozenset[str]]

    def __init__(self, code: str, message: str, **details: Any) -> None:
        if code not in self.codes:
            raise ValueError(f"{code!r} is not a code of {type(self).__name__}")
        super().__init__(message)
        self.code = code
        self.message = message
        self.details: dict[str, Any] = {k: v for k, v in details.items() if v is not None}


class RequestError(CupolaError):
    """The request is at fault; the same request will fail again."""

    blame = "request"
    codes = frozenset({"invalid_request", "missing_objects", "denied", "quota_exceeded"})


class BuildError(CupolaError):
    """The build ran, or was about to run, and is at fault."""

    blame = "build"
    codes = frozenset(
        {
            "build_failed",
            "output_missing",
            "output_unsupported",
            "timeout",
            "silence",
            "out_of_memory",
            "log_limit",
            "disk_limit",
            "cancelled",
        }
    )


class HostError(CupolaError):
    """The host or the daemon is at fault; `details["retryable"]` says whether to try again."""

    blame = "host"
    codes = frozenset({"infrastructure"})


class DaemonUnavailableError(CupolaError):
    """No daemon answers at the socket, or it speaks no protocol version of ours."""

    blame = "host"
    codes = frozenset({"no_daemon"})


_KINDS: Mapping[str, type[CupolaError]] = {
    code: kind
    for kind in (RequestError, BuildError, HostError, DaemonUnavailableError)
    for code in kind.codes
}


def invalid_request(field: str, rule: str, *, index: int | None = None) -> RequestError:
    """An `invalid_request`: `field` (dotted, with indexes) breaks `rule` (a verb phrase)."""
    return RequestError("invalid_request", f"{field} {rule}", field=field, index=index, rule=rule)


def missing_objects(
    blobs: Iterable[bytes] = (), directories: Iterable[bytes] = (), *, limit: int = 1000
) -> RequestError:
    """A `missing_objects`: the store lacks these digests (the first `limit` of each are named)."""
    absent_blobs, absent_directories = sorted(set(blobs)), sorted(set(directories))
    count = len(absent_blobs) + len(absent_directories)
    return RequestError(
        "missing_objects",
        f"the store lacks {count} object{'s' if count != 1 else ''} that the request names;"
        " upload them first",
        blobs=absent_blobs[:limit],
        directories=absent_directories[:limit],
        count=count,
    )


def infrastructure(message: str, *, retryable: bool) -> HostError:
    """An `infrastructure` error."""
    return HostError("infrastructure", message, retryable=retryable)


def disconnected(message: str) -> HostError:
    """The daemon ends, or is gone, before it has answered: the same again is in order."""
    return HostError("infrastructure", message, retryable=True, disconnected=True)


def from_code(code: str, message: str, details: Mapping[str, Any]) -> CupolaError:
    """The error that a peer sent as `code`; raises ValueError for a code that does not exist."""
    kind = _KINDS.get(code)
    if kind is None:
        raise ValueError(f"unknown error code {code!r}")
    return kind(code, message, **details)

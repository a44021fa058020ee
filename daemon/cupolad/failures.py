"""The one place where an exception becomes a reply."""

from __future__ import annotations

import errno

from cupola.errors import CupolaError, infrastructure, invalid_request
from cupola.framing import FrameError
from cupola.messages import Failure
from cupola.shapes import ShapeError
from cupolad import events


def as_error(error: Exception, doing: str) -> CupolaError:
    """What a client is told of `error`, which ended `doing` (words for the daemon's own log)."""
    match error:
        case CupolaError():
            return error
        case FrameError():
            return invalid_request("frame", f"is refused: {error}")
        case ShapeError():
            return invalid_request(error.field, error.rule, index=error.index)
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            events.DISK_FULL.tell(doing=doing, reason=error)
            return infrastructure(
                "the daemon's disk is full; tell the administrator", retryable=True
            )
        case OSError():
            events.HOST_ERROR.tell(doing=doing, reason=error)
            return infrastructure("the daemon's host failed; try again", retryable=True)
        case _:
            events.INTERNAL_ERROR.tell(doing=doing, error=error)
            return infrastructure("internal error of the daemon; report it", retryable=False)


def reply(error: CupolaError) -> Failure:
    """The message that carries `error`."""
    return Failure(error.code, error.message, error.details)

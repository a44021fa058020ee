"""How the command tells of an error: a sentence or a JSON object, and the exit status."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from cupola.errors import BuildError, CupolaError, DaemonUnavailableError
from cupola.exporter import ExportPathError
from cupola.importer import ImportPathError
from cupola.notation import bytes_to_text, printable

EXIT_REQUEST: Final = 2
EXIT_INTERRUPTED: Final = 130
EXIT_BROKEN_PIPE: Final = 141

_EXIT: Final = {
    "invalid_request": EXIT_REQUEST,
    "missing_objects": EXIT_REQUEST,
    "denied": 77,
    "quota_exceeded": 75,
    "timeout": 101,
    "silence": 101,
    "cancelled": EXIT_INTERRUPTED,
    "infrastructure": 75,
    "no_daemon": 69,
}
_EXIT_BUILD: Final = 100


class UsageError(ValueError):
    """What the user gave cannot be used; the message says why and what would do."""


REPORTED: Final = (CupolaError, ImportPathError, ExportPathError, UsageError)


def exit_status(error: Exception) -> int:
    """The status that stands for `error`; see `docs/protocol.md` for the codes."""
    if isinstance(error, CupolaError):
        return _EXIT.get(error.code, _EXIT_BUILD if isinstance(error, BuildError) else 1)
    return EXIT_REQUEST


def report(error: Exception, *, as_json: bool) -> int:
    """Tell of `error`; the exit status."""
    if as_json:
        print(json.dumps(_as_json(error)))
    elif isinstance(error, CupolaError):
        print(f"cupola: {error.message} ({error.code})", file=sys.stderr)
        if isinstance(error, DaemonUnavailableError):
            print("cupola: `cupola doctor` says what is wrong, and what to do", file=sys.stderr)
        for digest in [*error.details.get("blobs", ()), *error.details.get("directories", ())][:10]:
            print(f"  {digest.hex()}", file=sys.stderr)
        if log := error.details.get("log"):
            print(f"cupola: the whole log: cupola cat {log}", file=sys.stderr)
    else:
        print(f"cupola: {error}", file=sys.stderr)
    return exit_status(error)


def show_log_tail(error: CupolaError) -> None:
    """Print the last lines of the failed build's log."""
    for line in error.details.get("log_tail", ()):
        print(f"  | {printable(line)}", file=sys.stderr)


def _as_json(error: Exception) -> dict[str, Any]:
    if not isinstance(error, CupolaError):
        return {"error": {"code": "invalid_request", "message": str(error)}}
    details = {key: _plain(value, key) for key, value in error.details.items()}
    build_id = details.pop("build_id", None)
    answer: dict[str, Any] = {} if build_id is None else {"build_id": build_id}
    answer["error"] = {"code": error.code, "message": error.message, **details}
    return answer


def _plain(value: Any, key: str) -> Any:
    """A detail as JSON has it: digests in hex, other bytes as text."""
    if isinstance(value, bytes):
        return value.hex() if key in {"blobs", "directories"} else bytes_to_text(value)
    if isinstance(value, list):
        return [_plain(item, key) for item in value]
    return value

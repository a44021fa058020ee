"""Every kind of event that administrators are told of: its words, its level and its identity.

In the journal an event carries its fields as `CUPOLA_<NAME>` besides the message, and a MESSAGE_ID
by which `journalctl -x` finds what happened and what to do in `systemd/cupola.catalog`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from logging import ERROR, INFO, WARNING
from typing import Any, Final

from cupola import notation

_log = logging.getLogger("cupolad")

_SHOWN_LENGTH: Final = 2000


@dataclass(frozen=True, slots=True)
class Event:
    """A kind of event; `text` has a place for each of its fields that people want to see."""

    message_id: str
    level: int
    text: str

    def tell(self, *, error: BaseException | None = None, **fields: Any) -> None:
        """Say that it has happened; a field may be a list. `error` adds a traceback."""
        shown = {name: _shown(value) for name, value in fields.items()}
        message = self.text.format_map(shown)[:_SHOWN_LENGTH]
        extra = {"event": self, "fields": fields}
        _log.log(self.level, "%s", message, extra=extra, exc_info=error)


def _shown(value: Any) -> Any:
    """A value as people see it, without control characters."""
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, (list, tuple)):
        more = f" and {len(value) - 1} more" if len(value) > 1 else ""
        return f"{_shown(value[0])}{more}" if value else "nothing"
    return notation.printable(str(value).encode(errors="surrogateescape"))


# --- the daemon ----------------------------------------------------------------------------------

READY: Final = Event(
    "7dd0b56abf294d108a6269bd9e6693db",
    INFO,
    "ready: at most {max_builds} builds at once, listening at {socket}",
)
STOPPING: Final = Event("00326475deaa4ebe856ed9298b908e78", INFO, "stopping: {reason}")
DRAINING: Final = Event(
    "9843579d46994c038b432da6b36fbecb",
    INFO,
    "draining: {running} builds run, {queued} wait, grace {seconds:g} s",
)
HURRIED: Final = Event(
    "9b662d9b676a498d8f8f652a23ffca01", WARNING, "second {signal}: leaving at once"
)
STOPPED: Final = Event("b209cd719297478ea482e74150cab132", INFO, "stopped")
RELOADED: Final = Event("9e90cb73125c4862b2a7490e503f5c81", INFO, "configuration reloaded")
KEPT: Final = Event(
    "c6f9b1a90d4e4a7f8b0d5fb7f1c9e2aa", WARNING, "changed by the next start only: {keys}"
)
RELOAD_REFUSED: Final = Event(
    "000a51763c9e4866ab07a9af6373617b", ERROR, "reload refused, nothing was changed: {reason}"
)
RECOVERED: Final = Event(
    "0479fdf860834c3e98599a3247f8287a",
    WARNING,
    "removed what a killed daemon left: {units} units, {cgroups} cgroups, {containers} containers,"
    " {bundles} bundles",
)
NO_UNITS: Final = Event(
    "75fce35c7e974436931841bc925c1c11",
    ERROR,
    "builds get no units of their own, runc sets their limits: {reason}",
)
SLOW: Final = Event(
    "83f90300af6f48e68b398f626cff6df2",
    WARNING,
    "store and helpers took {seconds:.1f} s to answer",
)
NO_HELPER: Final = Event(
    "a89785deb93c48dda20af1639405dd0c", ERROR, "no helper kept ready: {reason}"
)
CGROUP_LEFT: Final = Event(
    "8aef9970a7d94ebbae5c8132c0b978c2", ERROR, "cannot remove the cgroup {cgroup}: {reason}"
)
INTERNAL_ERROR: Final = Event("750e7ed442d1425d8865b1c71a6f8d0d", ERROR, "{doing}: internal error")
HOST_ERROR: Final = Event("486b8b43940744b5812fdad41c04ad8b", ERROR, "{doing}: {reason}")
DISK_FULL: Final = Event("e79d110a00b24d95929f458f7628b70c", ERROR, "{doing}: {reason}")
MESSAGES_LOST: Final = Event(
    "530ccb140e2c4b42b48bac88af397705", WARNING, "the journal did not take {count} messages"
)

# --- clients -------------------------------------------------------------------------------------

REFUSED: Final = Event("9a157c1e3ea44005b446f20b630d589c", WARNING, "uid {uid}: refused: {reason}")
REQUEST_REFUSED: Final = Event(
    "1b16d5f8634f4295a7df5227e03cb6fc", INFO, "uid {uid}: {code}: {reason}"
)

# --- builds --------------------------------------------------------------------------------------

_BUILD: Final = "build {build_id} of uid {uid}: "

ACCEPTED: Final = Event("398a8f0446c7497aa311ac2f55292afd", INFO, _BUILD + "accepted: {output}")
STARTED: Final = Event("10cfd85733b0449ba1d730821e7d9030", INFO, _BUILD + "started")
BUILT: Final = Event("d31cda3d6493463aaae9691e6a39fc41", INFO, _BUILD + "built in {seconds:.2f} s")
FAILED: Final = Event("aa6878ced0e14b7595058dbbf53c98c3", WARNING, _BUILD + "{code}: {reason}")
HOST_FAILED: Final = Event("5b2bc3cf95ce4e9bb51b7ecd3cec24f6", ERROR, _BUILD + "{code}: {reason}")
CANCELLED: Final = Event("b0276f30ada94f2080a655932d702410", WARNING, _BUILD + "{reason}")
RUNC_FAILED: Final = Event(
    "6fba46cb039b4ff08f30733094554745", ERROR, "build {build_id}: runc failed: {reason}"
)
INPUTS_FAILED: Final = Event(
    "bc7ef5ec00044d89819093f70ed86540", ERROR, "build {build_id}: inputs: {reason}"
)
STORING_FAILED: Final = Event(
    "dd7e74964ffe430f8c27368bfa8d84a3", ERROR, "build {build_id}: {what} was not stored: {reason}"
)
STUCK: Final = Event(
    "6ef406017a5540e0b170935fd1fdc29f",
    ERROR,
    "cgroup {cgroup}: processes survive SIGKILL for {seconds:g} s",
)

# --- what builds write ---------------------------------------------------------------------------

LINE: Final = Event("1e4e8186a0a840f3a7d1971446abd1fb", INFO, "{line}")
LINES_LEFT_OUT: Final = Event(
    "ef6ba9e3f4154d0488e7456489f6c6fe",
    INFO,
    "{count} lines of the build's log are not in the journal",
)

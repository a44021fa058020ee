"""The helper that speaks with systemd, over the socket that process 1 itself listens at.

`systemctl` takes the same way when it is root's: it needs no message bus, so builds do not depend
on one that hangs or is not there.
"""

from __future__ import annotations

import os
import socket
import time
from typing import Any, Final

from cupolad.workers.channel import Channel

_ADDRESS: Final = b"unix:path=/run/systemd/private"
_SIGNATURES: Final = {
    "CPUQuotaPerSecUSec": "t",
    "CPUWeight": "t",
    "Documentation": "as",
    "IOWeight": "t",
    "OOMPolicy": "s",
    "PIDFile": "s",
    "TimeoutStartUSec": "t",
    "UnsetEnvironment": "as",
}
"""D-Bus types of properties that the library does not know (org.freedesktop.systemd1(5))."""

_STOP_SECONDS: Final = 10


def serve(connection: socket.socket) -> None:
    """The process: each frame is a request, and has one answer.

    `{"do": "root"}` is answered with `{"root": cgroup}`; `{"do": "start", "unit", "properties"}`,
    followed by descriptors for stdout and stderr, with `{}`; `{"do": "stop", "units": pattern}`
    with `{"count"}` when they have ended.  What went wrong is a `{"fault": text}`.
    """
    # Here, and not above: the fork server, and so every other helper, can do without them.
    from pystemd.dbusexc import DBusBaseError

    channel = Channel(connection)
    manager = None
    while (request := channel.receive()) is not None:
        descriptors = _descriptors(channel, request)
        try:
            manager = manager or _connect()
            answer = _answer(manager, request, descriptors)
        except DBusBaseError as error:
            manager = None
            answer = {"fault": _text(error)}
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        channel.send(answer)


def _descriptors(channel: Channel, request: dict[str, Any]) -> list[int]:
    if request["do"] != "start":
        return []
    received = [channel.receive_descriptor(), channel.receive_descriptor()]
    return [descriptor for descriptor in received if descriptor is not None]


def _connect() -> Any:
    from pystemd.dbuslib import DBusAddress
    from pystemd.systemd1 import Manager
    from pystemd.systemd1.unit_signatures import KNOWN_UNIT_SIGNATURES

    for name, signature in _SIGNATURES.items():
        KNOWN_UNIT_SIGNATURES.setdefault(name.encode(), signature.encode())
    bus = DBusAddress(_ADDRESS, peer_to_peer=True)
    bus.open()
    manager = Manager(bus=bus)
    manager.load()
    return manager.Manager


def _answer(manager: Any, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
    match request:
        case {"do": "root"}:
            return {"root": manager.ControlGroup.decode()}
        case {"do": "start", "unit": unit, "properties": properties}:
            stdout, stderr = descriptors
            all_of_them = {
                **{name.encode(): value for name, value in properties.items()},
                b"StandardInput": b"null",
                b"StandardOutputFileDescriptor": stdout,
                b"StandardErrorFileDescriptor": stderr,
            }
            manager.StartTransientUnit(unit.encode(), b"fail", all_of_them)
            return {}
        case {"do": "stop", "units": pattern}:
            return {"count": _stop(manager, pattern)}
    raise ValueError(request)


def _stop(manager: Any, pattern: str) -> int:
    """Stop all units whose names match, and wait for them; how many there were."""
    names = {unit[0] for unit in _units(manager, pattern)}
    for name in names:
        manager.StopUnit(name, b"replace")
    deadline = time.monotonic() + _STOP_SECONDS
    while _units(manager, pattern) and time.monotonic() < deadline:
        time.sleep(0.02)
    return len(names)


def _units(manager: Any, pattern: str) -> list[Any]:
    return list(manager.ListUnitsByPatterns([], [pattern.encode()]))


def _text(error: Any) -> str:
    message = error.err_message
    return message.decode(errors="replace") if isinstance(message, bytes) else str(message)

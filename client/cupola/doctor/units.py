"""Whether systemd runs, and what it says of the daemon's socket and service."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from cupola.connection import DEFAULT_SOCKET
from cupola.doctor.finding import Finding, Verdict, ok, problem, together, unknown, warning
from cupola.doctor.system import ProgramError, ProgramStuckError, System

SOCKET_UNIT: Final = "cupolad.socket"
SERVICE_UNIT: Final = "cupolad.service"

_START: Final = f"`sudo systemctl enable --now {SOCKET_UNIT}`"
_AGAIN: Final = (
    f"`sudo systemctl reset-failed {SERVICE_UNIT} && sudo systemctl restart {SOCKET_UNIT}`"
)
_WHY: Final = "`sudo journalctl -u cupolad -e`"

_WRONG_CONFIGURATION: Final = "78"
"""The daemon's exit status when it cannot use its configuration."""

_LOOKS: Final = 4
_LOOK_SECONDS: Final = 0.3
"""A service that starts is looked at so many times more, so far apart."""

_UNIT: Final = (
    "LoadState",
    "LoadError",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "Result",
    "NeedDaemonReload",
)
_SOCKET: Final = (*_UNIT, "Listen")
_SERVICE: Final = (*_UNIT, "StatusText", "ExecMainStatus", "NRestarts")

Properties = Mapping[str, str]


def check_systemd(system: System) -> Finding:
    """Whether there is a systemd that answers."""
    if not system.has_systemd:
        return warning(
            "systemd does not run here, so nothing starts cupolad, or starts it again",
            "start it by hand, as root, with `cupolad`",
        )
    try:
        shown = _show(system, ("Version", "SystemState"))
    except ProgramStuckError as error:
        return problem(
            f"systemd does not answer: {error}",
            "`sudo systemctl status dbus` and `sudo journalctl -b -p err` say more; if they do not"
            " answer either, restart the machine",
        )
    return ok(f"systemd {shown['Version']} is {shown['SystemState']}")


def check_socket_unit(system: System) -> Finding:
    """Whether systemd listens for clients, now and after the next start of the machine."""
    if not system.has_systemd:
        return _no_systemd(SOCKET_UNIT)
    unit = _show(system, _SOCKET, SOCKET_UNIT)
    finding = _absent(SOCKET_UNIT, unit) or _judge_socket(system, unit)
    return _less_grave(system, finding)


def check_service_unit(system: System) -> Finding:
    """Whether the service runs, or could."""
    if not system.has_systemd:
        return _no_systemd(SERVICE_UNIT)
    unit = _show(system, _SERVICE, SERVICE_UNIT)
    # One that fails again and again is seen as starting, now and then.
    for _ in range(_LOOKS):
        if unit["SubState"] != "start":
            break
        time.sleep(_LOOK_SECONDS)
        unit = _show(system, _SERVICE, SERVICE_UNIT)
    finding = _absent(SERVICE_UNIT, unit) or _judge_service(unit)
    return _less_grave(system, finding)


def _show(system: System, properties: tuple[str, ...], *units: str) -> Properties:
    """Properties of a unit, or of the manager; ProgramError if systemd does not tell."""
    output = system.run(
        ["systemctl", "show", "--no-pager", f"--property={','.join(properties)}", *units]
    )
    shown: dict[str, str] = {}
    for line in output.out.splitlines():
        key, _, value = line.partition("=")
        shown[key] = f"{shown[key]}\n{value}" if key in shown else value
    if output.status != 0 or not shown:
        raise ProgramError(f"systemctl: {output.complaint}")
    return {**dict.fromkeys(properties, ""), **shown}


def _no_systemd(name: str) -> Finding:
    return unknown(
        f"there is no systemd that could tell of {name}",
        "see what is said of the daemon itself",
    )


def _absent(name: str, unit: Properties) -> Finding | None:
    """What is to be said of a unit that is not properly installed."""
    match unit["LoadState"]:
        case "loaded":
            return None
        case "not-found":
            return problem(
                f"{name} is not installed",
                f"install the daemon on this machine, then {_START}",
            )
        case "masked":
            return problem(
                f"{name} is masked, which keeps it from being started",
                f"`sudo systemctl unmask {name}`, then {_START}",
            )
        case state:
            return problem(
                f"{name} cannot be used ({state}): {unit['LoadError'] or 'no reason is given'}",
                f"`systemd-analyze verify {name}` says more; correct it, then"
                " `sudo systemctl daemon-reload`",
            )


def _judge_socket(system: System, unit: Properties) -> Finding:
    state, result = unit["ActiveState"], unit["Result"]
    if state == "failed":
        return problem(f"{SOCKET_UNIT} has failed ({result})", f"{_WHY} says why; then {_AGAIN}")
    if state != "active":
        return problem(f"{SOCKET_UNIT} is {state}, so nobody listens for clients", _START)
    listens = [line.rpartition(" (")[0] for line in unit["Listen"].splitlines()]
    asked = os.path.realpath(system.socket)
    complaints = [*_not_reloaded(SOCKET_UNIT, unit)]
    if listens and asked not in map(os.path.realpath, listens):
        complaints.append(
            warning(
                f"{SOCKET_UNIT} listens at {', '.join(listens)}, but you ask at {system.socket}",
                f"unless you mean another daemon: `export CUPOLA_SOCKET={shlex.quote(listens[0])}`, or"
                " correct --socket",
            )
        )
    if unit["UnitFileState"] not in ("enabled", "static", "enabled-runtime"):
        complaints.append(
            warning(
                f"{SOCKET_UNIT} is active, but will not be after the next start of the machine",
                f"`sudo systemctl enable {SOCKET_UNIT}`",
            )
        )
    return together(complaints, ok(f"{SOCKET_UNIT} is active ({unit['SubState']})"))


def _judge_service(unit: Properties) -> Finding:
    state, said = unit["ActiveState"], unit["StatusText"]
    if state == "failed" or unit["SubState"] == "auto-restart":
        return _failed(unit)
    if state == "deactivating":
        return warning(
            f"{SERVICE_UNIT} is about to stop{f': {said}' * bool(said)}",
            "wait until its builds have ended, then try again",
        )
    complaints = [*_not_reloaded(SERVICE_UNIT, unit)]
    if unit["NRestarts"] not in ("", "0"):
        complaints.append(
            warning(
                f"{SERVICE_UNIT} had to be started again {unit['NRestarts']} times after it failed",
                f"{_WHY} says why",
            )
        )
    if state == "inactive":
        return together(complaints, ok(f"{SERVICE_UNIT} is idle; the next client starts it"))
    return together(complaints, ok(f"{SERVICE_UNIT} is {state} ({said or unit['SubState']})"))


def _failed(unit: Properties) -> Finding:
    status, said = unit["ExecMainStatus"], unit["StatusText"]
    found = f"{SERVICE_UNIT} fails ({unit['Result']}, status {status}){f': {said}' * bool(said)}"
    if status == _WRONG_CONFIGURATION:
        return problem(
            f"{found}: its configuration is wrong",
            f"`sudo cupolad --check-config` says where; correct it, then {_AGAIN}",
        )
    return problem(found, f"{_WHY} says why; then {_AGAIN}")


def _not_reloaded(name: str, unit: Properties) -> list[Finding]:
    if unit["NeedDaemonReload"] != "yes":
        return []
    return [
        warning(
            f"{name} was changed on disk since systemd read it", "`sudo systemctl daemon-reload`"
        )
    ]


def _less_grave(system: System, finding: Finding) -> Finding:
    """The finding, as far as it concerns somebody who asks another daemon than the system's."""
    if finding.verdict is not Verdict.PROBLEM or system.socket == DEFAULT_SOCKET:
        return finding
    return replace(
        finding,
        verdict=Verdict.WARNING,
        found=f"{finding.found} (but you ask another daemon, at {system.socket})",
    )

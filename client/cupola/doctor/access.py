"""Whether this user may use the daemon's socket: its owner and mode, and the group's members."""

from __future__ import annotations

import os
import shlex
import stat
from typing import Final

from cupola.connection import DEFAULT_SOCKET
from cupola.doctor.finding import Finding, ok, problem, unknown, warning
from cupola.doctor.system import System

GROUP: Final = "cupola"
_NOBODYS_GROUP: Final = "root"
"""The group of a socket that was given to none; nobody should be put in it."""


def check_socket(system: System) -> Finding:
    """Whether the socket is there, is root's, and lets this user in."""
    path = system.socket
    try:
        status = system.path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return problem(f"there is no {path}", _start(system))
    except PermissionError:
        return problem(
            f"you may not enter a directory above {path}",
            f"`namei -l {shlex.quote(str(path))}` shows which; a socket for others belongs into a"
            " directory that they may pass, as /run/cupola is",
        )
    if not stat.S_ISSOCK(status.st_mode):
        return problem(f"{path} is not a socket", _making_room(system))
    owner, group = _names(system, status)
    found = f"{path} is {owner}:{group}, mode {stat.S_IMODE(status.st_mode):04o}"
    if not system.may_write(system.path(path)):
        return problem(f"{found}, so you may not use it", _admission(group, status.st_mode))
    if status.st_uid != system.root_uid:
        return warning(
            f"{found}; whoever runs that daemon sees what you build, and makes what you get",
            "make sure that you trust its owner, or ask the system's daemon: leave out --socket and"
            " CUPOLA_SOCKET",
        )
    return ok(f"{found}, and you may use it")


def check_group(system: System) -> Finding:
    """Whether the user is in the socket's group, in the database and in this session."""
    if system.is_root:
        return ok("root needs no group")
    group = _group_of_socket(system)
    gid = system.accounts.group_id(group)
    if gid not in system.groups and system.may_write(system.path(system.socket)):
        return ok(f"the socket is open to you without the group {group}")
    if gid is None:
        return problem(
            f"there is no group {group}, whose members may use the daemon",
            f"`sudo systemd-sysusers`, or `sudo groupadd --system {group}`; then"
            " `sudo systemctl restart cupolad.socket`",
        )
    user = system.accounts.user_name(system.uid)
    if user is None:
        return unknown(
            f"the user id {system.uid} is in no database, so its groups cannot be told",
            f"`getent passwd {system.uid}` should find it; ask the administrator for an account",
        )
    listed = gid in system.accounts.groups_of(user)
    if gid in system.groups:
        if listed:
            return ok(f"{user} is in the group {group}")
        return warning(
            f"{user} is not in the group {group} any more, this session alone still is",
            f"`sudo usermod -aG {group} {user}`, if that was not meant",
        )
    if listed:
        return problem(
            f"{user} was put in the group {group} after this session began, which is not in it",
            f"log out of every session and log in again, or `newgrp {group}` for this shell",
        )
    return problem(
        f"{user} is not in the group {group}, whose members may use the daemon",
        f"`sudo usermod -aG {group} {user}`, then log in again",
    )


def _start(system: System) -> str:
    if system.socket == DEFAULT_SOCKET:
        return system.starting
    return "name the right socket with --socket or CUPOLA_SOCKET, or start its daemon"


def _making_room(system: System) -> str:
    if system.socket == DEFAULT_SOCKET:
        return f"`sudo mv {system.socket} {system.socket}.old`, then {system.starting}"
    return "name the right socket with --socket or CUPOLA_SOCKET"


def _names(system: System, status: os.stat_result) -> tuple[str, str]:
    """The names of owner and group, or their numbers."""
    accounts = system.accounts
    owner = accounts.user_name(status.st_uid) or str(status.st_uid)
    return owner, accounts.group_name(status.st_gid) or str(status.st_gid)


def _admission(group: str, mode: int) -> str:
    """How a user gets to use a socket of that group and mode."""
    if group == _NOBODYS_GROUP or not mode & stat.S_IWGRP:
        return (
            f"give it to a group, with `SocketGroup={GROUP}` and `SocketMode=0660` in"
            " cupolad.socket, then `sudo systemctl daemon-reload` and restart the socket"
        )
    return f"become a member of the group {group}; see what is said of the group"


def _group_of_socket(system: System) -> str:
    """The group whose members may use the socket, or should."""
    try:
        status = system.path(system.socket).stat()
    except OSError:
        return GROUP
    group = system.accounts.group_name(status.st_gid) or GROUP
    return GROUP if group == _NOBODYS_GROUP or status.st_uid != system.root_uid else group

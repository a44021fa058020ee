"""The machine as the checks see it: files below a root, programs, users, room on a disk.

Checks look at the machine through this alone, so that a test can show them another one.
"""

from __future__ import annotations

import grp
import os
import platform
import pwd
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cupola.connection import DEFAULT_SOCKET

PROGRAM_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Where the daemon looks for programs, and the checks as well."""

_PROGRAM_SECONDS: Final = 3
_ENVIRONMENT: Final = {"PATH": PROGRAM_PATH, "LC_ALL": "C.UTF-8"}


class ProgramError(Exception):
    """A program could not be run to its end, or failed; the message says why."""


class ProgramStuckError(ProgramError):
    """A program did not end in time."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a program left behind."""

    status: int
    out: str = ""
    err: str = ""

    @property
    def complaint(self) -> str:
        """The last line of what it said went wrong."""
        lines = (self.err.strip() or self.out.strip()).splitlines()
        return lines[-1].strip() if lines else f"it ended with status {self.status}"


def run_program(command: Sequence[str]) -> Output:
    """Run a program that needs no input; ProgramError if it cannot be, or takes too long."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=_ENVIRONMENT,
            timeout=_PROGRAM_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ProgramStuckError(
            f"`{' '.join(command)}` did not end within {_PROGRAM_SECONDS} s"
        ) from None
    except OSError as error:
        raise ProgramError(f"cannot run {command[0]}: {error.strerror}") from None
    return Output(done.returncode, done.stdout, done.stderr)


class Accounts:
    """The machine's database of users and groups; None for what is not in it."""

    def user_name(self, uid: int) -> str | None:
        """The name of a user."""
        try:
            return pwd.getpwuid(uid).pw_name
        except KeyError:
            return None

    def group_name(self, gid: int) -> str | None:
        """The name of a group."""
        try:
            return grp.getgrgid(gid).gr_name
        except KeyError:
            return None

    def group_id(self, name: str) -> int | None:
        """The id of a group."""
        try:
            return grp.getgrnam(name).gr_gid
        except KeyError:
            return None

    def groups_of(self, user: str) -> frozenset[int]:
        """The ids of all groups that a user has been put in."""
        return frozenset(os.getgrouplist(user, pwd.getpwnam(user).pw_gid))


def _open_device(device: Path) -> None:
    os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))


def _session_groups() -> frozenset[int]:
    return frozenset({os.getegid(), *os.getgroups()})


def _may_write(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=True)


@dataclass(frozen=True)
class System:
    """A machine, and the user who asks. By default this one, and whoever runs this."""

    socket: Path = DEFAULT_SOCKET
    """Where this user's clients look for the daemon."""
    root: Path = Path("/")
    release: str = field(default_factory=platform.release)
    """What the kernel calls itself."""
    machine: str = field(default_factory=platform.machine)
    uid: int = field(default_factory=os.geteuid)
    root_uid: int = 0
    """Who owns the system's files, and may do everything."""
    groups: frozenset[int] = field(default_factory=_session_groups)
    """The ids of the groups that this session has."""
    accounts: Accounts = field(default_factory=Accounts)
    run: Callable[[Sequence[str]], Output] = run_program
    space: Callable[[Path], os.statvfs_result] = os.statvfs
    may_write: Callable[[Path], bool] = _may_write
    open_device: Callable[[Path], None] = _open_device
    """Opens a device and closes it again; OSError if that cannot be."""

    @property
    def is_root(self) -> bool:
        """Whether the user is the administrator."""
        return self.uid == self.root_uid

    @property
    def has_systemd(self) -> bool:
        """Whether systemd runs the machine; see sd_booted(3)."""
        return self.path("/run/systemd/system").is_dir()

    def path(self, name: str | Path) -> Path:
        """Where the file that the machine calls `name` is; a relative name is the user's own."""
        return self.root / str(name).lstrip("/") if Path(name).is_absolute() else Path(name)

    def read(self, name: str) -> str:
        """The text of a file."""
        return self.path(name).read_text(errors="replace")

    def find_program(self, name: str) -> str | None:
        """The path of a program, looked up as the daemon does."""
        if "/" in name:
            return name if os.access(self.path(name), os.X_OK) else None
        for directory in PROGRAM_PATH.split(":"):
            if os.access(self.path(f"{directory}/{name}"), os.X_OK):
                return f"{directory}/{name}"
        return None

    @property
    def starting(self) -> str:
        """How to let the daemon's socket be there."""
        if self.has_systemd:
            return "`sudo systemctl enable --now cupolad.socket`"
        return "start the daemon as root, with `cupolad`"

    @property
    def restarting(self) -> str:
        """How to get another daemon in place of one that does not serve."""
        if self.has_systemd:
            return "`sudo systemctl restart cupolad.service`"
        return "end the daemon and start it again as root, with `cupolad`"

    def installing(self, package: str) -> str:
        """How to install what Debian calls `package`."""
        if self.find_program("apt-get"):
            return f"`sudo apt-get install {package}`"
        return f"install {package} with the package manager of this distribution"

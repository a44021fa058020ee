"""A fabricated machine for the doctor: a tree of files, programs that say what they are told to.

It is in good health until a test changes it.  Its files belong to whoever runs the tests, who
stands for root; the user who asks is somebody else.
"""

from __future__ import annotations

import dataclasses
import gzip
import os
import stat
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cupola.connection import DEFAULT_SOCKET
from cupola.doctor.system import Accounts, Output, ProgramError, System

USER, GROUP_ID = 61000, os.getegid()
"""The user who asks, and the group of the socket."""

HYBRID = ("memory", "pids", "cpu", "cpuacct", "freezer")
LIMITS = ("user", "mnt", "pid", "ipc", "uts", "net", "cgroup")
RUNC = "/usr/sbin/runc"


class Book(Accounts):
    """Users and groups as a test writes them down."""

    def __init__(self) -> None:
        self.users: dict[int, str] = {USER: "alice", os.geteuid(): "root"}
        self.groups: dict[int, str] = {GROUP_ID: "cupola"}
        self.members: dict[str, set[int]] = {"alice": {GROUP_ID}}

    def user_name(self, uid: int) -> str | None:
        return self.users.get(uid)

    def group_name(self, gid: int) -> str | None:
        return self.groups.get(gid)

    def group_id(self, name: str) -> int | None:
        return next((gid for gid, known in self.groups.items() if known == name), None)

    def groups_of(self, user: str) -> frozenset[int]:
        return frozenset(self.members[user])


def program(*interpreter: int) -> bytes:
    """The beginning of an ELF file of 64 bits with these kinds of program headers (3: PT_INTERP)."""
    kinds = (1, *interpreter)
    header = b"\x7fELF\x02\x01\x01".ljust(32, b"\0") + struct.pack("=Q", 64)
    header = header.ljust(54, b"\0") + struct.pack("=HH", 56, len(kinds))
    return header.ljust(64, b"\0") + b"".join(struct.pack("=I52x", kind) for kind in kinds)


class Patient:
    """The machine. Tests change its tree, `says` and `fields`, then look at `system`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.book = Book()
        self.fields: dict[str, Any] = {}
        self.space: dict[str, int] = {}
        self.says: dict[str, Output | ProgramError] = {
            f"{RUNC} --version": Output(0, "runc version 1.1.12\nspec: 1.0.2-dev\n"),
            "dpkg-query --search": Output(0, f"runc: {RUNC}\n"),
            "dpkg-query --show": Output(0, "1.1.12-1"),
            "dpkg --compare-versions": Output(1),
        }
        self.shows("systemctl show", Version="252", SystemState="running")
        self.unit("cupolad.socket", SubState="listening", Listen=f"{DEFAULT_SOCKET} (Stream)")
        self.unit("cupolad.service", StatusText="0 building", NRestarts="0", ExecMainStatus="0")
        self._grow()

    def _grow(self) -> None:
        for kind in LIMITS:
            self.write(f"proc/sys/user/max_{kind}_namespaces", "15000\n")
        self.write("proc/self/ns/user", "")
        self.write("proc/self/uid_map", "         0          0 4294967295\n")
        self.write("proc/filesystems", "nodev\ttmpfs\n\text4\nnodev\tfuse\n")
        self.write(
            "proc/cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t1\t1\n"
        )
        self.cgroups(unified="/sys/fs/cgroup")
        for name in (RUNC, "usr/bin/apt-get"):
            self.write(name, "").chmod(0o755)
        self.write("bin/busybox", program()).chmod(0o755)
        for directory in ("run/systemd/system", "var/lib/cupola", "dev"):
            (self.root / directory).mkdir(parents=True)
        for directory in (self.root, *self.root.glob("var/**/")):
            directory.chmod(0o755)
        # A test may point it elsewhere; whether it can be opened is not asked of the host.
        (self.root / "dev/fuse").symlink_to("/dev/fuse")
        self.make_socket()

    def write(self, name: str, text: str | bytes) -> Path:
        """Make a file of the machine."""
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def remove(self, name: str) -> None:
        """Remove a file, or an empty directory."""
        path = self.root / name.lstrip("/")
        path.rmdir() if path.is_dir() else path.unlink()

    def make_socket(self, mode: int = 0o660) -> None:
        """Make the daemon's socket, which nobody listens at."""
        path = self.root / str(DEFAULT_SOCKET).lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        os.mknod(path, stat.S_IFSOCK | mode)
        path.chmod(mode)

    def cgroups(
        self,
        *v1: str,
        unified: str | None = None,
        controllers: str = "cpu memory pids",
        at: str = "rw",
    ) -> None:
        """Mount the cgroup hierarchies."""
        mounts = ["22 1 0:20 / / rw - ext4 /dev/sda rw"]
        mounts += [f"23 22 0:21 / /cg/{c} {at} - cgroup cgroup rw,{c}" for c in v1]
        if unified:
            mounts.append(f"24 22 0:22 / {unified} {at} - cgroup2 cgroup2 rw")
            self.write(f"{unified}/cgroup.controllers", controllers)
        self.write("proc/self/mountinfo", "\n".join(mounts) + "\n")

    def built_with(self, options: str) -> None:
        """Give the kernel a configuration."""
        self.write("proc/config.gz", gzip.compress(options.encode()))

    def shows(self, command: str, **properties: str) -> None:
        """What a `systemctl show` prints; a value of several lines is several properties."""
        lines = [f"{k}={line}\n" for k, v in properties.items() for line in v.split("\n")]
        self.says[command] = Output(0, "".join(lines))

    def unit(self, name: str, **properties: str) -> None:
        """A unit that is loaded and active, but for what is said here."""
        healthy = {
            "LoadState": "loaded",
            "ActiveState": "active",
            "SubState": "running",
            "UnitFileState": "enabled",
            "Result": "success",
            "NeedDaemonReload": "no",
        }
        self.shows(f"systemctl show {name}", **{**healthy, **properties})

    def _run(self, command: Sequence[str]) -> Output:
        line = " ".join(word for word in command if not word.startswith("--prop"))
        line = line.replace(" --no-pager", "")
        # The longest beginning that something is said for.
        known = max((k for k in self.says if line.startswith(k)), key=len, default=None)
        if known is None:
            raise ProgramError(f"cannot run {command[0]}: No such file or directory")
        answer = self.says[known]
        if isinstance(answer, ProgramError):
            raise answer
        return answer

    def _space(self, path: Path) -> os.statvfs_result:
        assert path.is_relative_to(self.root)
        values = {
            "f_bsize": 4096,
            "f_frsize": 4096,
            "f_blocks": 10**8,
            "f_bfree": 10**8,
            "f_bavail": 10**8,
            "f_files": 10**8,
            "f_ffree": 10**8,
            "f_favail": 10**8,
            "f_flag": 0,
            "f_namemax": 255,
            **self.space,
        }
        return os.statvfs_result(values.values())

    @property
    def system(self) -> System:
        """The machine as the checks see it."""
        healthy = System(
            root=self.root,
            release="6.1.0-18-amd64",
            machine="x86_64",
            uid=USER,
            root_uid=os.geteuid(),
            groups=frozenset({GROUP_ID}),
            accounts=self.book,
            run=self._run,
            space=self._space,
            may_write=Path.exists,
            open_device=lambda _: None,
        )
        return dataclasses.replace(healthy, **self.fields)

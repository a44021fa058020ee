"""A real systemd in namespaces on an overlay of the host's root, for tests.

Boots in about half a second and leaves nothing behind.  Programs of the host are there as they
are; nothing that is written is kept.  It takes root, and cgroups that may be written.
"""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

from guest import BOOT_SECONDS, ENVIRONMENT, PROJECT, Guest, as_user

_STOP_SECONDS: Final = 30
_POWER_OFF: Final = signal.SIGRTMIN + 4
"""What process 1 takes for `systemctl poweroff`; see systemd(1)."""

# Enters the cgroups, which become the roots of the machine's cgroup namespace.
_ENTER: Final = """
for group in $GROUPS_TO_ENTER; do echo 0 > "$group/cgroup.procs"; done
exec unshare --mount --pid --uts --ipc --net --cgroup --propagation private \
    --fork --kill-child=SIGKILL sh "$@"
"""


class Machine(Guest):
    """A running systemd. Use it as a context manager, from a thread that lives as long as it."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="cupola-machine-"))
        self._console = self._directory / "console"
        self._cgroups: list[Path] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def __enter__(self) -> Self:
        try:
            self._boot()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self._leader, _POWER_OFF)
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        self._end()

    @property
    def root(self) -> Path:
        """The machine's root directory, as the host sees it."""
        return Path(f"/proc/{self._leader}/root")

    def popen(
        self, arguments: Sequence[str | Path], *, user: int | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        enter = ["nsenter", f"--target={self._leader}", "--all", "--root", "--wdns=/", "--"]
        command = [*enter, *as_user(user, arguments)]
        return subprocess.Popen(command, text=True, errors="replace", env=ENVIRONMENT, **options)

    # --- its life --------------------------------------------------------------------------------

    def _boot(self) -> None:
        share = self._directory / "share"
        share.mkdir()
        self._directory.chmod(0o755)
        os.mkfifo(self._directory / "go")
        ours = list(_own_cgroups())
        for group in ours:
            self._cgroups.append(_subgroup(group, self._directory.name))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(share / "notify"))
            self._start()
            self._let_go(ours)
            self._wait_until_ready(notify)
        # Nobody reads it any more, and process 1 would hang on a socket that is full.
        (share / "notify").unlink()
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        self._leader = int(children.read_text().split()[0])

    def _start(self) -> None:
        master, console = pty.openpty()
        guest = Path(__file__).with_name("guest.sh")
        groups = " ".join(map(str, self._cgroups))
        self._process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL"),
                *("sh", "-c", _ENTER, "sh", guest, self._directory, PROJECT),
            ],
            stdin=console,
            stdout=console,
            stderr=console,
            env={**ENVIRONMENT, "GROUPS_TO_ENTER": groups},
            start_new_session=True,
        )
        os.close(console)
        threading.Thread(target=self._record, args=(master,), daemon=True).start()

    def _record(self, master: int) -> None:
        """Keep what the machine writes to its console."""
        with self._console.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while data := os.read(master, 65536):
                file.write(data)
        os.close(master)

    def _let_go(self, ours: list[Path]) -> None:
        """Take the parent of process 1 back to `ours`, and let process 1 begin."""
        assert self._process is not None
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            try:
                go = os.open(self._directory / "go", os.O_WRONLY | os.O_NONBLOCK)
                break
            except OSError:  # nobody reads yet
                self._check_boot(deadline)
                time.sleep(0.005)
        for group in ours:
            (group / "cgroup.procs").write_text(str(self._process.pid))
        os.write(go, b"\n")
        os.close(go)

    def _wait_until_ready(self, notify: socket.socket) -> None:
        deadline = time.monotonic() + BOOT_SECONDS
        notify.settimeout(0.2)
        while True:
            with contextlib.suppress(TimeoutError):
                if b"READY=1" in notify.recv(4096):
                    return
            self._check_boot(deadline)

    def _check_boot(self, deadline: float) -> None:
        assert self._process is not None
        if self._process.poll() is not None or time.monotonic() > deadline:
            console = self._console.read_text(errors="replace") if self._console.exists() else ""
            raise RuntimeError(f"the machine did not boot:\n{console}")

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()  # and with it process 1 and all else
            self._process.wait()
        for group in self._cgroups:
            _remove_cgroup(group)
        shutil.rmtree(self._directory, ignore_errors=True)


def _own_cgroups() -> Iterator[Path]:
    """This process's group in each hierarchy."""
    mounts: dict[str, str] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        fstype, _, options = right.split()[:3]
        if fstype == "cgroup2":
            mounts.setdefault("", left.split()[4])
        elif fstype == "cgroup":
            for option in options.split(","):
                mounts.setdefault(option, left.split()[4])
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if (mount := mounts.get(controllers.partition(",")[0])) is not None:
            yield Path(mount) / path.lstrip("/")


def _subgroup(group: Path, name: str) -> Path:
    made = group / name
    made.mkdir()
    for setting in ("cpuset.cpus", "cpuset.mems"):  # empty in a new group of cgroup v1
        if (made / setting).exists():
            (made / setting).write_text((group / setting).read_text())
    return made


def _remove_cgroup(group: Path) -> None:
    deadline = time.monotonic() + _STOP_SECONDS
    while group.exists() and time.monotonic() < deadline:
        for directory, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                Path(directory).rmdir()

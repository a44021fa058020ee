"""A real systemd on a kernel of its own, User-Mode Linux, for tests of cgroup v2.

Its root is an overlay of the host's; its only cgroup hierarchy is the unified one, with the
controllers that limits need.  Boots in about six seconds; each program started costs 20 ms, and
Python is several times slower than on the host.  All that it has on the host are processes in a
pid namespace and files on a tmpfs in a mount namespace, so it leaves nothing, however the tests
end.  It takes root, and Debian's package user-mode-linux.
"""

from __future__ import annotations

import contextlib
import itertools
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final, Self

from guest import BOOT_SECONDS, ENVIRONMENT, PROJECT, Guest, as_user

KERNEL: Final = "linux.uml"
_MODULES: Final = Path("/usr/lib/uml/modules")
_MEMORY: Final = "512M"
_INIT: Final = Path(__file__).with_name("uml.sh")
_STAND_IN: Final = Path(__file__).with_name("uml_job.py")
_SHARED: Final = Path("/run/machine")
"""Where, in the kernel's own mount namespace, jobs are handed over."""

# Runs a program with a /run of its own.
_ENTER: Final = """
set -eu
mount -t tmpfs -o mode=755 run /run
mkdir "$1"
shift
exec "$@"
"""


class UmlMachine(Guest):
    """A running systemd. Use it as a context manager, from a thread that lives as long as it."""

    def __init__(self) -> None:
        self._life = contextlib.ExitStack()
        self._jobs = itertools.count()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as life:
            ours, serial = map(life.enter_context, socket.socketpair())
            console = life.enter_context(tempfile.TemporaryFile())
            self._line = ours.fileno()
            self._kernel = life.enter_context(_running(_command(serial.fileno()), serial, console))
            self._shared = Path(f"/proc/{self._kernel.pid}/root{_SHARED}")
            self._wait_until_ready(console)
            self._life = life.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._life.close()

    def _wait_until_ready(self, console: IO[bytes]) -> None:
        deadline = time.monotonic() + BOOT_SECONDS
        while not (self._shared / "ready").exists():
            if self._kernel.poll() is not None or time.monotonic() > deadline:
                console.seek(0)
                text = console.read().decode(errors="replace")
                raise RuntimeError(f"the machine did not boot:\n{text}")
            time.sleep(0.05)

    def popen(
        self, arguments: Sequence[str | Path], *, user: int | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Start a program in the machine, once its standard input has come to its end."""
        # The shell that starts it ignores these signals, as for every command in its background.
        clean = ["env", "--ignore-environment", "--default-signal=INT,QUIT"]
        variables = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
        job = self._shared / str(next(self._jobs))
        job.mkdir()
        (job / "command").write_text(shlex.join([*clean, *variables, *as_user(user, arguments)]))
        return subprocess.Popen(
            [sys.executable, "-I", "-S", _STAND_IN, str(self._line), job],
            text=True,
            pass_fds=[self._line],
            **options,
        )


def _command(serial: int) -> list[str]:
    """The kernel's command line; its serial line is the descriptor `serial`."""
    return [
        KERNEL,
        f"mem={_MEMORY}",
        *("uml_dir=/run/uml", "umid=machine"),
        *("rootfstype=hostfs", "rootflags=/", "ro", "quiet"),
        *("con=null", "con0=null,fd:1", f"ssl0=fd:{serial}"),
        f'init="{_INIT}"',
        f'modules="{_MODULES}"',
        f'place="{PROJECT}"',
        f'shared="{_SHARED}"',
    ]


@contextlib.contextmanager
def _running(
    command: Sequence[str], serial: socket.socket, console: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a kernel in namespaces of its own; it ends with the block, or with this process."""
    process = subprocess.Popen(
        [
            *("setpriv", "--pdeathsig", "KILL"),
            *("unshare", "--mount", "--pid", "--propagation", "private", "--mount-proc"),
            *("--fork", "--kill-child=SIGKILL", "sh", "-c", _ENTER, "sh", _SHARED, *command),
        ],
        stdin=subprocess.DEVNULL,
        stdout=console,
        stderr=console,
        pass_fds=[serial.fileno()],
        env={**ENVIRONMENT, "TMPDIR": "/run"},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()  # and with it the kernel and all else
        process.wait()

"""A real daemon, real unprivileged users, and a look at the host before and after."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import cupola.sync
from cupola import BuildConstraints, BuildRequest
from cupolad.testing import PrivateDaemon, UserCommand
from waiting import eventually

UID_BASE, UID_COUNT = 872415232, 128 * 65536
NOBODY = 65534


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this directory needs all of it."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for mark in ("root", "fuse", "runc"):
                item.add_marker(mark)


# --- the host, before and after ------------------------------------------------------------------


@dataclass(frozen=True)
class Host:
    """What a daemon could leave behind."""

    mounts: frozenset[str]
    cgroups: frozenset[str]
    processes: frozenset[int]
    fuse: frozenset[str]

    @classmethod
    def now(cls) -> Host:
        """The host as it is."""
        cgroups = {
            str(path)
            for root in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir())
            for path in root.glob(f"cupola-{'[0-9a-f]' * 8}/*")
            if path.is_dir()
        }
        connections = Path("/sys/fs/fuse/connections")
        return cls(
            frozenset(Path("/proc/self/mounts").read_text().splitlines()),
            frozenset(cgroups),
            frozenset(_processes_of_builds()),
            frozenset(os.listdir(connections) if connections.is_dir() else ()),
        )


def _processes_of_builds() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if UID_BASE <= entry.stat().st_uid < UID_BASE + UID_COUNT:
                    yield int(entry.name)


def descriptors(pid: int) -> int:
    """How many file descriptors a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def arrivals(daemon: PrivateDaemon) -> list[Path]:
    """Files on their way into the store."""
    return list((daemon.state / "incoming").glob("*/*"))


def leftovers(daemon: PrivateDaemon) -> list[str]:
    """What there should not be when no build runs."""
    return [
        *os.listdir(daemon.state / "bundles"),
        *map(str, arrivals(daemon)),
        *os.listdir(daemon.directory / "run" / "runc"),
    ]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """After each test the host is as it was before."""
    before = Host.now()
    yield
    assert eventually(lambda: Host.now() == before), (before, Host.now())


# --- daemon and client ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def daemon() -> Iterator[PrivateDaemon]:
    """A daemon with the default configuration; its log must hold nothing unexpected."""
    with PrivateDaemon() as daemon:
        yield daemon
        assert leftovers(daemon) == []
        log = daemon.log.read_text()
        assert "Traceback" not in log
        assert "internal error" not in log


@pytest.fixture
def client(daemon: PrivateDaemon) -> Iterator[cupola.sync.Client]:
    """A client of the daemon, as root."""
    with cupola.sync.connect(daemon.socket) as client:
        yield client


def shell(script: str, *outputs: str, **fields: Any) -> BuildRequest:
    """A build that runs a shell script in /build; by default its output is `out`."""
    constraints = BuildConstraints("x86_64-linux", provide_bin_sh=True)
    return BuildRequest(
        **{
            "command_args": ("/bin/sh", "-euc", script),
            "outputs": tuple(f"build/{name}" for name in outputs or ("out",)),
            "constraints": constraints,
            "environment_vars": {"PATH": b"/bin"},
            **fields,
        }
    )


@dataclass
class Logged:
    """Gathers what a build writes."""

    streams: dict[str, bytes] = field(default_factory=lambda: {"stdout": b"", "stderr": b""})

    def __call__(self, log: cupola.Log) -> None:
        self.streams[log.stream] += log.data

    @property
    def out(self) -> str:
        """What it wrote to stdout."""
        return self.streams["stdout"].decode()

    @property
    def err(self) -> str:
        """What it wrote to stderr."""
        return self.streams["stderr"].decode()


def output_of(client: cupola.sync.Client, script: str, **fields: Any) -> str:
    """What a script writes to stdout in the sandbox."""
    logged = Logged()
    client.build(shell(f"{script}\n: > out", **fields), on_log=logged)
    return logged.out


# --- users ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class User:
    """A real user of the host."""

    uid: int
    command: UserCommand
    home: Path

    def popen(
        self, daemon: PrivateDaemon, *arguments: str | Path, **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start `cupola` with these arguments as this user."""
        options = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "cwd": self.home,
            **options,
        }
        return self.command.popen(self.uid, "--socket", daemon.socket, *arguments, **options)

    def run(
        self, daemon: PrivateDaemon, *arguments: str | Path, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `cupola` with these arguments as this user."""
        with self.popen(daemon, *arguments, stdin=subprocess.PIPE) as process:
            out, err = process.communicate(None if stdin is None else stdin.encode(), timeout=120)
        return subprocess.CompletedProcess(
            arguments, process.returncode, out.decode(), err.decode()
        )

    def json(self, daemon: PrivateDaemon, *arguments: str | Path, stdin: str | None = None) -> Any:
        """What `cupola … --json` prints."""
        done = self.run(daemon, *arguments, "--json", stdin=stdin)
        assert done.stdout.count("\n") == 1, done
        return json.loads(done.stdout)


@pytest.fixture(scope="session")
def user_command() -> Iterator[UserCommand]:
    """The command `cupola` as others can run it."""
    with UserCommand() as command:
        yield command


@pytest.fixture(scope="session")
def users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[int]]:
    """The ids of three users made with useradd."""
    names = [f"cupola-test-{os.getpid()}-{letter}" for letter in "abc"]
    try:
        for name in names:
            subprocess.run(
                ["useradd", "--no-create-home", "--shell", "/usr/sbin/nologin", name], check=True
            )
        yield [int(subprocess.check_output(["id", "-u", name])) for name in names]
    finally:
        for name in names:
            subprocess.run(["userdel", name], check=False, stderr=subprocess.DEVNULL)


@pytest.fixture
def open_tmp(tmp_path: Path) -> Path:
    """A temporary directory that every user can reach and write."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.getuid() and directory.name.startswith(
            ("pytest", tmp_path.name)
        ):
            directory.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o777)
    return home


@pytest.fixture
def user(users: list[int], user_command: UserCommand, open_tmp: Path) -> User:
    """An unprivileged user."""
    return User(users[0], user_command, open_tmp)


@pytest.fixture
def nobody(user_command: UserCommand, open_tmp: Path) -> User:
    """The user `nobody`."""
    return User(NOBODY, user_command, open_tmp)


@pytest.fixture(scope="session")
def probe_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`probe.c`, compiled; what it can do stands at its top."""
    binary = tmp_path_factory.mktemp("probe") / "probe"
    source = Path(__file__).with_name("probe.c")
    subprocess.run(["gcc", "-O1", "-Wall", "-Werror", "-static", "-o", binary, source], check=True)
    return binary


@pytest.fixture
def probe(client: cupola.sync.Client, probe_binary: Path) -> cupola.FileNode:
    """The probe as a node; mount it as an input."""
    node = client.import_path(probe_binary)
    assert isinstance(node, cupola.FileNode)
    return node

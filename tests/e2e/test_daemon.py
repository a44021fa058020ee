"""The daemon's own life: start, stop, reload, death, and what it leaves."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import cupola.sync
from conftest import Host, Logged, leftovers, shell
from cupola import CupolaError, Name
from cupolad.testing import PrivateDaemon
from waiting import eventually


@pytest.fixture
def own() -> Iterator[PrivateDaemon]:
    """A daemon of the test's own."""
    with PrivateDaemon("[daemon]\ndrain = 30\n") as daemon:
        yield daemon


class Building:
    """A build in another thread."""

    def __init__(self, daemon: PrivateDaemon, script: str) -> None:
        self.error: CupolaError | None = None
        self.log = Logged()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(daemon, script))
        self._thread.start()
        assert self._started.wait(10)

    def _run(self, daemon: PrivateDaemon, script: str) -> None:
        with cupola.sync.connect(daemon.socket) as client:
            try:
                client.build(
                    shell(script),
                    on_log=self.log,
                    on_state=lambda _: self._started.set(),
                )
            except CupolaError as error:
                self.error = error

    def join(self) -> CupolaError | None:
        """Wait for its end; its error."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.error


def test_a_stop_lets_running_builds_end(own: PrivateDaemon) -> None:
    build = Building(own, "echo up; sleep 1; : > out")
    assert eventually(lambda: build.log.out == "up\n")
    own.signal(signal.SIGTERM)
    assert build.join() is None
    assert own.wait() == 0
    assert not own.socket.exists()


def test_a_stop_refuses_new_builds_and_connections(own: PrivateDaemon) -> None:
    with cupola.sync.connect(own.socket) as client:
        build = Building(own, "echo up; sleep 1; : > out")
        assert eventually(lambda: build.log.out == "up\n")
        own.signal(signal.SIGTERM)
        assert eventually(lambda: client.status().draining)
        with pytest.raises(CupolaError, match="shutting down") as caught:
            client.build(shell(": > out"))
        assert caught.value.details["retryable"] is True
        assert build.join() is None
    assert own.wait() == 0


def test_a_stop_does_not_wait_for_ever() -> None:
    with PrivateDaemon("[daemon]\ndrain = 0.5\n") as daemon:
        build = Building(daemon, "echo up; sleep 1000")
        assert eventually(lambda: build.log.out == "up\n")
        start = time.monotonic()
        daemon.signal(signal.SIGTERM)
        error = build.join()
        assert error is not None
        assert (error.code, error.details["retryable"]) == ("infrastructure", True)
        assert daemon.wait() == 0
        assert time.monotonic() - start < 5


def test_a_second_interrupt_leaves_at_once(own: PrivateDaemon) -> None:
    build = Building(own, "echo up; sleep 1000")
    assert eventually(lambda: build.log.out == "up\n")
    start = time.monotonic()
    own.signal(signal.SIGINT)
    assert eventually(lambda: "draining" in own.log.read_text())
    assert build.error is None
    own.signal(signal.SIGINT)
    assert own.wait() == 0
    assert time.monotonic() - start < 5
    assert build.join() is not None


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.1, 0.5])
def test_a_killed_daemon_leaves_nothing_after_the_next_start(
    own: PrivateDaemon, delay: float, tmp_path: Path
) -> None:
    before = Host.now()
    (tmp_path / "f").write_text("kept")
    with cupola.sync.connect(own.socket) as client:
        node = client.import_path(tmp_path)
    builds = [Building(own, "echo up; sleep 1000") for _ in range(2)]
    time.sleep(delay)
    own.kill()
    for build in builds:
        build.join()
    own.start()
    assert leftovers(own) == []
    # Whoever is process 1 here collects the dead at its leisure.
    assert eventually(lambda: Host.now() == before)
    with cupola.sync.connect(own.socket) as client:
        assert client.has(node)
        request = shell("cat /inputs/t/f > out", inputs={Name(b"t"): node})
        client.build(request)


def test_clients_of_a_killed_daemon_are_told(own: PrivateDaemon) -> None:
    build = Building(own, "echo up; sleep 1000")
    assert eventually(lambda: build.log.out == "up\n")
    own.kill()
    error = build.join()
    assert error is not None
    assert (error.code, error.details["retryable"]) == ("infrastructure", True)
    own.start()


def test_one_daemon_a_state_directory(own: PrivateDaemon) -> None:
    command = [
        argument if argument != str(own.socket) else f"{own.socket}2" for argument in own.command
    ]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 69
    assert "another cupolad uses" in second.stderr
    command = [
        argument if argument != str(own.state) else f"{own.state}2" for argument in own.command
    ]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 69
    assert "another daemon listens at" in second.stderr
    with cupola.sync.connect(own.socket) as client:
        client.build(shell(": > out"))


def test_two_daemons_side_by_side(own: PrivateDaemon) -> None:
    with PrivateDaemon("[sandbox]\nuid_base = 1073741824\n") as other:
        builds = [Building(daemon, "echo up; sleep 0.3; : > out") for daemon in (own, other)]
        assert [build.join() for build in builds] == [None, None]


def test_the_stale_socket_of_a_dead_daemon_is_replaced(own: PrivateDaemon) -> None:
    own.kill()
    assert own.socket.exists()
    own.start()


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    command = [sys.executable, "-I", "-m", "cupolad", "--state-dir", str(tmp_path / "s"),
               "--runtime-dir", str(tmp_path / "r"), "--socket", str(path)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, path.read_text()) == (69, "precious")
    assert "exists and is no socket" in done.stderr


@pytest.mark.parametrize(
    ("config", "status", "says"),
    [
        ("[sandbox]\nruntime = 'absent'\n", 69, "'absent' was not found; install runc"),
        ("[sandbox]\nshell = '/absent'\n", 69, "/absent is not executable; install busybox-static"),
        ("[sandbox]\nshel = '/absent'\n", 78, "unknown key sandbox.shel"),
    ],
)
def test_what_is_missing_is_told(config: str, status: int, says: str) -> None:
    assert_refuses(PrivateDaemon(config), status, says)


def test_a_store_of_a_later_version_is_left_alone() -> None:
    daemon = PrivateDaemon()
    daemon.state.mkdir()
    with contextlib.closing(sqlite3.connect(daemon.state / "store.sqlite")) as database:
        database.execute("PRAGMA user_version = 99")
    assert_refuses(daemon, 69, "cannot be used")


def assert_refuses(daemon: PrivateDaemon, status: int, says: str) -> None:
    """The daemon does not start, and says why in a sentence."""
    try:
        done = subprocess.run(
            daemon.command, capture_output=True, text=True, timeout=30, check=False
        )
    finally:
        shutil.rmtree(daemon.directory)
    assert done.returncode == status
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_somebody_else_cannot_start_it() -> None:
    script = (
        "import os, cupolad.cli; os.setuid(65534);"
        " raise SystemExit(cupolad.cli.run(['--state-dir', '/nonexistent']))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 69, done
    assert "cupolad needs to be root" in done.stderr


# --- systemd's way -------------------------------------------------------------------------------


def _activated(own: Path, listener: socket.socket, **environment: str) -> subprocess.Popen[str]:
    """A daemon that inherits `listener` as descriptor 3, as from systemd."""
    command = [
        sys.executable, "-I", "-m", "cupolad",
        "--state-dir", str(own / "state"), "--runtime-dir", str(own / "run"),
    ]  # fmt: skip
    script = (
        f"import os; os.dup2({listener.fileno()}, 3);"
        " os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1');"
        f" os.execv({command[0]!r}, {command!r})"
    )
    return subprocess.Popen(
        [sys.executable, "-I", "-c", script],
        pass_fds=[listener.fileno()],
        env={"PATH": os.environ["PATH"], **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_socket_activation_and_notification(tmp_path: Path) -> None:
    """The socket stays when the daemon goes; READY comes when it answers."""
    path, notify_path = tmp_path / "sock", tmp_path / "notify"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
    ):
        listener.bind(str(path))
        listener.listen(100)
        notify.bind(str(notify_path))
        notify.settimeout(20)
        for _ in range(2):
            waiting = threading.Thread(target=_build_once, args=(path,))
            waiting.start()
            with _activated(tmp_path, listener, NOTIFY_SOCKET=str(notify_path)) as process:
                _told(notify, b"READY=1")
                waiting.join(20)
                assert not waiting.is_alive()
                with cupola.sync.connect(path) as client:
                    logged = Logged()
                    client.build(shell("cat /proc/1/environ; : > out"), on_log=logged)
                    assert "NOTIFY" not in logged.out
                    assert "LISTEN" not in logged.out
                process.send_signal(signal.SIGTERM)
                _told(notify, b"STOPPING=1")
                assert process.wait(20) == 0
                assert path.exists()


def _told(notify: socket.socket, what: bytes) -> None:
    """Wait until systemd is told this."""
    while notify.recv(1000) != what:
        pass


def _build_once(path: Path) -> None:
    with cupola.sync.connect(path) as client:
        client.build(shell(": > out"))


def test_an_idle_daemon_ends(tmp_path: Path) -> None:
    with PrivateDaemon("[daemon]\nidle_exit = 0.5\n") as daemon:
        with cupola.sync.connect(daemon.socket) as client:
            client.build(shell("sleep 1; : > out"))
        assert daemon.wait(10) == 0


def test_reload(own: PrivateDaemon) -> None:
    own.config.write_text("[scheduler]\nmax_builds = 7\n[limits]\nlog_bytes = 10\n")
    own.signal(signal.SIGHUP)
    with cupola.sync.connect(own.socket) as client:
        assert eventually(lambda: client.status().max_builds == 7)
        assert client.status().limits["log_bytes"] == 10
        own.config.write_text("[scheduler]\nmax_builds = 'many'\n")
        own.signal(signal.SIGHUP)
        assert eventually(lambda: "reload refused" in own.log.read_text())
        assert client.status().max_builds == 7


# --- what runs beside it -------------------------------------------------------------------------


def test_runc_gets_a_fixed_environment_and_no_secret_arguments(
    own: PrivateDaemon, tmp_path: Path
) -> None:
    """A runc in between notes how it was called, and calls the real one."""
    own.stop()
    note = own.directory / "note"
    fake = own.directory / "runc"
    fake.write_text(
        f"#!/bin/sh\ntr '\\0' '\\n' < /proc/$$/environ > {note}\necho \"$@\" >> {note}\nexec runc \"$@\"\n"
    )
    fake.chmod(0o755)
    own.config.write_text(f"[sandbox]\nruntime = '{fake}'\n")
    own.start()
    with cupola.sync.connect(own.socket) as client:
        client.build(
            shell(
                ": secret-argument > out",
                environment_vars={"SECRET": b"secret-value", "PATH": b"/bin"},
            )
        )
    lines = note.read_text().splitlines()
    assert set(lines[:-1]) == {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "GOMAXPROCS=1", "LANG=C"}
    assert "secret" not in note.read_text()
    assert re.search(r"--root \S+/run/runc .* create --pid-file ", lines[-1])


@pytest.mark.parametrize(
    ("script", "retryable"),
    [
        ("exit 1", True),
        ("echo garbage >&2; exit 3", True),
        ("kill -SEGV $$", True),
        ('echo \'{"level":"error","msg":"no /var/lib/secret"}\' > $4; exit 1', True),
    ],
)
def test_a_runc_that_fails(own: PrivateDaemon, script: str, retryable: bool) -> None:
    """It is the host's fault, never the build's, and nothing of what runc says reaches the user."""
    own.stop()
    fake = own.directory / "runc"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    own.config.write_text(f"[sandbox]\nruntime = '{fake}'\n")
    own.start()
    logged = Logged()
    with cupola.sync.connect(own.socket) as client:
        for _ in range(3):
            with pytest.raises(CupolaError) as caught:
                client.build(shell(": > out"), on_log=logged)
            assert caught.value.code == "infrastructure"
            assert caught.value.details["retryable"] is retryable
            assert "secret" not in str(caught.value)
    assert logged.streams == {"stdout": b"", "stderr": b""}
    assert leftovers(own) == []


def _helpers(pid: int, words: bytes) -> list[int]:
    """Descendants of the daemon whose command line has these words."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if words in (entry / "cmdline").read_bytes() and _is_below(int(entry.name), pid):
                    found.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def _is_below(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False


def test_helpers_that_are_killed_are_replaced(own: PrivateDaemon, tmp_path: Path) -> None:
    """A server of inputs that dies ends its own build, as a fault of the host, and no other."""
    (tmp_path / "f").write_text("x")
    with cupola.sync.connect(own.socket) as client:
        node = client.import_path(tmp_path)
        inputs = {Name(b"t"): node}
        other = Building(own, "echo up; sleep 2; : > out")
        for _ in range(3):

            def kill(log: cupola.Log) -> None:
                assert log.data == b"up\n"
                for pid in _helpers(own.pid, b"forkserver"):
                    if os.path.exists(f"/proc/{pid}/fd") and "fuse" in str(
                        [
                            os.readlink(f"/proc/{pid}/fd/{fd}")
                            for fd in os.listdir(f"/proc/{pid}/fd")
                        ]
                    ):
                        os.kill(pid, signal.SIGKILL)

            with pytest.raises(CupolaError) as caught:
                client.build(
                    shell("ls /inputs/t >/dev/null; echo up; sleep 1000", inputs=inputs),
                    on_log=kill,
                )
            assert (caught.value.code, caught.value.details["retryable"]) == (
                "infrastructure",
                True,
            )
            client.build(shell("cat /inputs/t/f > out", inputs=inputs))
        assert other.join() is None


def test_a_build_that_ignores_a_damaged_input_fails_all_the_same(
    own: PrivateDaemon, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("some contents")
    with cupola.sync.connect(own.socket) as client:
        node = client.import_path(tmp_path)
        blob = next((own.state / "blobs").glob("*/*"))
        blob.chmod(0o600)
        blob.write_text("less")
        with pytest.raises(CupolaError) as caught:
            client.build(shell("cat /inputs/t/f || :; : > out", inputs={Name(b"t"): node}))
        assert (caught.value.code, caught.value.details["retryable"]) == ("infrastructure", False)
        blob.unlink()
        with pytest.raises(CupolaError, match="its log says why"):
            client.build(shell("cat /inputs/t/f || :; : > out", inputs={Name(b"t"): node}))
        assert blob.name in own.log.read_text()


def test_the_umask_it_is_started_with_does_not_matter(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        daemon = PrivateDaemon()
        daemon.start()
    finally:
        os.umask(before)
    with daemon, cupola.sync.connect(daemon.socket) as client:
        client.build(shell("cat /etc/passwd > out"))
        (tmp_path / "file").write_bytes(b"data")
        client.import_path(tmp_path / "file")
        blobs = list((daemon.state / "blobs").glob("*/*"))
        assert {blob.stat().st_mode & 0o7777 for blob in blobs} == {0o444}


def test_a_state_directory_on_tmpfs(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data" * 100_000)
    with PrivateDaemon(parent=Path("/dev/shm")) as daemon:
        with cupola.sync.connect(daemon.socket) as client:
            node = client.import_path(tmp_path / "file")
            result = client.build(shell("cp /inputs/f out", inputs={Name(b"f"): node}))
        assert result.outputs[0].node == node


def test_a_stop_right_after_the_start_is_obeyed() -> None:
    for delay in (0.2, 0.3, 0.4, 0.5):
        daemon = PrivateDaemon()
        process = subprocess.Popen(daemon.command, stderr=subprocess.PIPE)
        with process:
            time.sleep(delay)
            process.terminate()
            # Before Python has got as far as the daemon's own code, nothing was taken yet.
            assert process.wait(20) in (0, -signal.SIGTERM)
        assert not daemon.socket.exists()
        with daemon:
            pass

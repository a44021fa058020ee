"""Where the listening socket comes from; real sockets, no systemd."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cupolad import activation
from cupolad.activation import ActivationError

# Becomes what systemd starts: its socket is descriptor 3, and the variables name this process.
STARTED = """
import os, socket, sys
fd, pid, count = int(sys.argv[1]), sys.argv[2] or str(os.getpid()), sys.argv[3]
os.dup2(fd, 3)
os.environ.update(LISTEN_PID=pid, LISTEN_FDS=count, LISTEN_FDNAMES="x")
from cupolad import activation
taken = activation.take_inherited(os.environ)
assert not [name for name in os.environ if name.startswith("LISTEN_")]
print("none" if taken is None else taken.getsockname())
if taken is not None:
    assert not taken.get_inheritable()
"""


def _start(
    listener: socket.socket, *, pid: str = "", count: str = "1"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", STARTED, str(listener.fileno()), pid, count],
        pass_fds=[listener.fileno()],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def listener(tmp_path: Path) -> socket.socket:
    """A socket as systemd makes it."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.bind(str(tmp_path / "systemd.sock"))
    made.listen()
    return made


def test_the_socket_of_systemd_is_taken(listener: socket.socket) -> None:
    with listener:
        done = _start(listener)
    assert done.stdout.strip().endswith("systemd.sock"), done.stderr


def test_variables_meant_for_another_process_are_ignored(listener: socket.socket) -> None:
    with listener:
        assert _start(listener, pid="1").stdout.strip() == "none"


def test_more_than_one_socket_is_refused(listener: socket.socket) -> None:
    with listener:
        assert "expected one socket" in _start(listener, count="2").stderr


def test_another_kind_of_socket_is_refused() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as wrong:
        assert "no Unix stream socket" in _start(wrong).stderr


def test_without_systemd_there_is_none() -> None:
    assert activation.take_inherited({}) is None


def test_a_socket_is_made_open_to_everybody_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with activation.listening(path) as made:
        assert stat.S_IMODE(path.stat().st_mode) == activation.SOCKET_MODE
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            made.accept()[0].close()
    assert not path.exists()


def test_the_socket_of_a_dead_daemon_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with activation.listening(path) as made:
        assert made.getsockname() == str(path)


def test_the_socket_of_a_living_daemon_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with activation.listening(path):
        with pytest.raises(ActivationError, match="another daemon"), activation.listening(path):
            pass
        assert path.exists()


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(ActivationError, match="is no socket"), activation.listening(path):
        pass
    assert path.read_text() == "precious"


def test_a_path_that_is_too_long_is_one_error(tmp_path: Path) -> None:
    with (
        pytest.raises(ActivationError, match="cannot listen"),
        activation.listening(tmp_path / ("x" * 200)),
    ):
        pass


def test_errors_of_the_daemon_itself_are_not_taken_for_ours(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), activation.listening(tmp_path / "s"):
        os.stat(tmp_path / "absent")

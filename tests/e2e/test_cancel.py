"""A client that goes takes its build with it, wherever the build is, and nothing is left."""

from __future__ import annotations

import signal
import socket
import struct
import time
from collections.abc import Iterator

import pytest

import cupola.sync
from conftest import User, arrivals, descriptors, leftovers, shell
from cupola import BuildRequest, CupolaError, FileNode, Name, framing, wire
from cupola.messages import Build, Hello, PutBlob, PutChunk
from cupola.nodes import Digest
from cupolad.testing import PrivateDaemon
from waiting import eventually


@pytest.fixture(scope="module")
def daemon() -> Iterator[PrivateDaemon]:
    """A daemon that runs one build at a time."""
    with PrivateDaemon("[scheduler]\nmax_builds = 1\n[limits]\nqueued_builds = 3\n") as daemon:
        yield daemon
        assert "Traceback" not in daemon.log.read_text()


def connect(daemon: PrivateDaemon) -> socket.socket:
    """A connection after its handshake."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(str(daemon.socket))
    send(connection, Hello((1,), "test"))
    assert receive(connection)["type"] == "welcome"
    return connection


def send(connection: socket.socket, message: object) -> None:
    """Send one message."""
    connection.sendall(framing.encode_frame(wire.encode(message)))  # type: ignore[arg-type]


def receive(connection: socket.socket) -> dict[str, object]:
    """The next message, undecoded."""
    (length,) = struct.unpack(">I", connection.recv(4, socket.MSG_WAITALL))
    item = framing.decode_item(connection.recv(length, socket.MSG_WAITALL))
    assert isinstance(item, dict)
    return item


def start(daemon: PrivateDaemon, request: BuildRequest) -> socket.socket:
    """A connection whose build runs."""
    connection = connect(daemon)
    send(connection, Build(request))
    assert receive(connection)["type"] == "queued"
    assert receive(connection)["type"] == "started"
    return connection


def _close(connection: socket.socket) -> None:
    connection.close()


def _half_close(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)


def _say_something(connection: socket.socket) -> None:
    send(connection, Hello((1,), "again"))


@pytest.mark.parametrize("leave", [_close, _half_close, _say_something])
@pytest.mark.parametrize("delay", [0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.3])
def test_leaving_in_every_phase(
    client: cupola.sync.Client, daemon: PrivateDaemon, probe: FileNode, leave: object, delay: float
) -> None:
    """From the start of the bundle to the running build; the permit is free at once."""
    request = shell("echo started; sleep 1000", inputs={Name(b"probe"): probe})
    count = descriptors(daemon.pid)
    connection = start(daemon, request)
    time.sleep(delay)
    leave(connection)  # type: ignore[operator]
    began = time.monotonic()
    client.build(shell(": > out"))
    assert time.monotonic() - began < 5
    connection.close()
    assert leftovers(daemon) == []
    assert client.status().running == 0
    assert eventually(lambda: descriptors(daemon.pid) <= count + 8)


def test_leaving_the_queue(client: cupola.sync.Client, daemon: PrivateDaemon) -> None:
    running = start(daemon, shell("sleep 1000"))
    waiting = connect(daemon)
    send(waiting, Build(shell(": > out")))
    assert receive(waiting)["type"] == "queued"
    assert eventually(lambda: client.status().queued == 1)
    waiting.close()
    assert eventually(lambda: client.status().queued == 0)
    assert client.status().running == 1
    running.close()
    assert eventually(lambda: client.status().running == 0)


def test_a_queue_that_is_full(client: cupola.sync.Client, daemon: PrivateDaemon) -> None:
    connections = [start(daemon, shell("sleep 1000"))]
    for _ in range(2):
        connections.append(connect(daemon))
        send(connections[-1], Build(shell(": > out")))
        assert receive(connections[-1])["type"] == "queued"
    with pytest.raises(CupolaError) as caught:
        client.build(shell(": > out"))
    assert (caught.value.code, caught.value.details["limit"]) == ("quota_exceeded", "queued_builds")
    for connection in reversed(connections):
        connection.close()
    client.build(shell(": > out"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_killed(
    daemon: PrivateDaemon, user: User, client: cupola.sync.Client, number: signal.Signals
) -> None:
    request = 'command_args = ["/bin/sh", "-c", "echo up; sleep 1000"]\noutputs = ["build/out"]\n[constraints]\nprovide_bin_sh = true\n[environment_vars]\nPATH = "/bin"\n'
    (user.home / "request.toml").write_text(request)
    with user.popen(daemon, "build", "request.toml") as process:
        assert process.stderr is not None
        while b"up" not in process.stderr.readline():
            pass
        (build,) = client.status().builds
        assert (build.uid, build.state) == (user.uid, "running")
        process.send_signal(number)
        process.wait(10)
        assert process.returncode == {signal.SIGINT: 130}.get(number, -number)
    assert eventually(lambda: client.status().running == 0)
    assert eventually(lambda: leftovers(daemon) == [])


def test_leaving_in_the_middle_of_an_upload(
    client: cupola.sync.Client, daemon: PrivateDaemon
) -> None:
    count = descriptors(daemon.pid)
    for _ in range(20):
        connection = connect(daemon)
        send(connection, PutBlob(Digest(bytes(32)), 1 << 40))
        send(connection, PutChunk(b"x" * 100_000))
        connection.close()
    assert eventually(lambda: arrivals(daemon) == [])
    assert eventually(lambda: descriptors(daemon.pid) <= count + 8)
    assert client.status().store_blobs >= 0

"""What goes wrong, or is made to, ends one build at most: it is told, and nothing is left."""

from __future__ import annotations

import os
import signal
import socket
import stat
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import cupola.sync
from conftest import Logged, arrivals, leftovers, shell
from cupola import BuildRequest, CupolaError, Name, framing, wire
from cupola.messages import Build, Hello
from cupolad.testing import PrivateDaemon
from waiting import eventually


@pytest.fixture
def own() -> Iterator[PrivateDaemon]:
    """A daemon of the test's own, with short limits."""
    with PrivateDaemon("[daemon]\ndrain = 1\n[limits]\nwall_seconds = 3\n") as daemon:
        yield daemon


def _send_build(daemon: PrivateDaemon, request: BuildRequest) -> socket.socket:
    """A connection that has asked for a build and reads nothing."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(str(daemon.socket))
    for message in (Hello((1,), "test"), Build(request)):
        connection.sendall(framing.encode_frame(wire.encode(message)))
    return connection


def test_a_server_of_inputs_that_hangs(own: PrivateDaemon, tmp_path: Path) -> None:
    """A process that waits for its answer cannot be killed before the connection is aborted."""
    (tmp_path / "f").write_text("x")
    with cupola.sync.connect(own.socket) as client:
        inputs = {Name(b"t"): client.import_path(tmp_path)}
        (blob,) = (own.state / "blobs").glob("*/*")
        blob.unlink()
        os.mkfifo(blob)  # opening it takes for ever
        start = time.monotonic()
        with pytest.raises(CupolaError) as caught:
            client.build(shell("cat /inputs/t/f", inputs=inputs))
        assert caught.value.code == "timeout"
        assert time.monotonic() - start < 12
        assert eventually(lambda: leftovers(own) == [])
        client.build(shell("ls /inputs/t > out", inputs=inputs))


def test_references_in_hard_links_count_for_each_output(own: PrivateDaemon) -> None:
    script = "mkdir b; echo needle-in-it > a; ln a b/c; echo other > d"
    with cupola.sync.connect(own.socket) as client:
        result = client.build(
            shell(script, "a", "b", "d", refscan_needles=(b"needle-in-it", b"other", b"absent"))
        )
    assert [output.needles for output in result.outputs] == [(0,), (0,), (1,)]


def test_a_client_that_goes_while_outputs_are_stored(own: PrivateDaemon) -> None:
    script = (
        "mkdir out; i=0; while [ $i -lt 1000 ]; do echo $i > out/$i; i=$((i+1)); done;"
        " truncate -s 20G out/large"
    )
    for _ in range(2):
        with _send_build(own, shell(script)):
            assert eventually(lambda: len(arrivals(own)) > 100)
        assert eventually(lambda: leftovers(own) == [])
    assert "Traceback" not in own.log.read_text()


def test_a_client_that_does_not_read_cannot_hold_the_daemon_up() -> None:
    with PrivateDaemon("[daemon]\ndrain = 1\n") as daemon:
        connection = _send_build(daemon, shell("head -c 20000000 /dev/zero; : > out"))
        with cupola.sync.connect(daemon.socket) as client, connection:
            assert eventually(lambda: "built in" in daemon.log.read_text())
            status = client.status()
            assert (status.running, status.queued, status.builds) == (0, 0, ())
            daemon.signal(signal.SIGTERM)
            assert daemon.wait(10) == 0


def test_a_state_directory_behind_a_symlink(tmp_path: Path) -> None:
    daemon = PrivateDaemon()
    (daemon.directory / "elsewhere").mkdir()
    daemon.state.symlink_to("elsewhere")
    (tmp_path / "f").write_text("x")
    with daemon, cupola.sync.connect(daemon.socket) as client:
        node = client.import_path(tmp_path)
        client.build(shell("cat /inputs/t/f > out", inputs={Name(b"t"): node}))
        assert leftovers(daemon) == []


def test_a_state_directory_is_closed_to_others() -> None:
    daemon = PrivateDaemon()
    daemon.state.mkdir(mode=0o755)
    with daemon:
        assert stat.S_IMODE(daemon.state.stat().st_mode) == 0o700


@pytest.mark.parametrize("what", ["owner", "mode"])
def test_a_state_directory_that_others_could_replace_is_refused(what: str) -> None:
    daemon = PrivateDaemon()
    between = daemon.directory / "between"
    between.mkdir()
    if what == "owner":
        os.chown(between, 65534, 65534)
    else:
        between.chmod(0o777)
    daemon.state = between / "state"
    with pytest.raises(RuntimeError, match="must belong to root"), daemon:
        pytest.fail("started")


def test_the_daemon_takes_all_descriptors_that_it_may_have(own: PrivateDaemon) -> None:
    limits = Path(f"/proc/{own.pid}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
    assert line.split()[3] == line.split()[4]


def test_outputs_that_are_too_large_or_take_too_long() -> None:
    with (
        PrivateDaemon("[limits]\nblob_bytes = 1000000000000\ningest_seconds = 2\n") as daemon,
        cupola.sync.connect(daemon.socket) as client,
    ):
        start = time.monotonic()
        with pytest.raises(CupolaError) as caught:
            client.build(shell("truncate -s 1000000000001 out"))
        assert caught.value.code == "output_unsupported"
        with pytest.raises(CupolaError, match="storing the outputs") as caught:
            client.build(shell("truncate -s 1000000000000 out"))
        assert caught.value.code == "timeout"
        assert time.monotonic() - start < 15
        assert eventually(lambda: leftovers(daemon) == [])


def test_a_directory_for_inputs_is_not_made_where_there_are_none(own: PrivateDaemon) -> None:
    with cupola.sync.connect(own.socket) as client, pytest.raises(CupolaError) as caught:
        client.build(shell(":", "in", inputs_dir="build/in"))
    assert caught.value.code == "output_missing"


def test_more_inputs_in_a_scratch_path_than_runc_can_bind(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    with PrivateDaemon() as daemon, cupola.sync.connect(daemon.socket) as client:
        node = client.import_path(tmp_path)
        inputs = {Name(b"%032d-a-package-with-a-name" % number): node for number in range(1500)}
        log = Logged()
        script = "cat */f | wc -c; ! touch *1499-a-package-with-a-name/f; : > out"
        request = shell(
            script,
            inputs=inputs,
            inputs_dir="nix/store",
            working_dir="nix/store",
            scratch_paths=("nix/store",),
        )
        client.build(
            BuildRequest(
                **{name: getattr(request, name) for name in request.__slots__}
                | {"outputs": ("nix/store/out",)}
            ),
            on_log=log,
        )
        assert log.out == "1500\n"
        assert "Read-only file system" in log.err
        assert leftovers(daemon) == []


def test_frames_full_of_tiny_items_keep_nobody_waiting(own: PrivateDaemon) -> None:
    bomb = struct.pack(">I", 8 << 20) + b"\x80" * (8 << 20)
    hello = framing.encode_frame(wire.encode(Hello((1,), "test")))
    stopped = threading.Event()

    def attack() -> None:
        while not stopped.is_set():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.connect(str(own.socket))
                try:
                    connection.sendall(hello + bomb)
                    connection.recv(100_000)
                except OSError:
                    continue

    attackers = [threading.Thread(target=attack) for _ in range(6)]
    for attacker in attackers:
        attacker.start()
    try:
        with cupola.sync.connect(own.socket) as client:
            for _ in range(10):
                start = time.monotonic()
                client.status()
                assert time.monotonic() - start < 1
    finally:
        stopped.set()
        for attacker in attackers:
            attacker.join()
    status = Path(f"/proc/{own.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    assert int(line.split()[1]) < 200 * 1024

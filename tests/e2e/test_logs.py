"""Logs stream while a build runs, as bytes, and no reader or writer harms another."""

from __future__ import annotations

import socket
import threading
import time

import pytest

import cupola.sync
from conftest import Logged, shell
from cupola import BuildError, FileNode, Log, Name, framing, wire
from cupola.messages import Build, Hello
from cupolad.testing import PrivateDaemon
from waiting import eventually


def test_lines_come_while_the_build_runs(client: cupola.sync.Client) -> None:
    arrived: list[tuple[float, bytes]] = []
    client.build(
        shell("for i in 1 2 3; do echo $i; sleep 0.4; done; : > out"),
        on_log=lambda log: arrived.append((time.monotonic(), log.data)),
    )
    assert [data for _, data in arrived] == [b"1\n", b"2\n", b"3\n"]
    assert arrived[2][0] - arrived[0][0] > 0.6


def test_streams_are_told_apart_and_bytes_are_kept(client: cupola.sync.Client) -> None:
    logged = Logged()
    client.build(shell(r"printf 'a\000\377\033[1m'; printf 'err\n' >&2; : > out"), on_log=logged)
    assert logged.streams == {"stdout": b"a\0\xff\x1b[1m", "stderr": b"err\n"}


def test_the_whole_log_is_kept_as_a_blob(client: cupola.sync.Client) -> None:
    result = client.build(shell("echo one; echo two >&2; : > out"))
    assert result.log is not None
    with client.open_blob(result.log) as log:
        assert sorted(log.read().splitlines()) == [b"one", b"two"]
    assert client.build(shell(": > out")).log is None


def test_the_log_of_a_failed_build(client: cupola.sync.Client) -> None:
    with pytest.raises(BuildError) as caught:
        client.build(shell("seq 1 100 >&2; echo the end >&2; exit 3"))
    details = caught.value.details
    assert details["exit_code"] == 3
    assert details["log_tail"][-1] == b"the end"
    assert len(details["log_tail"]) == 20
    node = cupola.notation.from_text(details["log"])
    assert isinstance(node, FileNode)
    with client.open_blob(node) as log:
        assert log.read().count(b"\n") == 101


@pytest.mark.parametrize("code", [1, 2, 100, 126, 127, 128, 137, 255])
def test_exit_codes(client: cupola.sync.Client, code: int) -> None:
    with pytest.raises(BuildError) as caught:
        client.build(shell(f"exit {code}"))
    assert caught.value.code == "build_failed"
    assert caught.value.details["exit_code"] == code
    assert "signal" not in caught.value.details


def test_a_signal_is_told_from_an_exit_code(client: cupola.sync.Client, probe: FileNode) -> None:
    request = shell("", command_args=("/inputs/probe", "fault"), inputs={Name(b"probe"): probe})
    with pytest.raises(BuildError, match="was killed by SIGSEGV") as caught:
        client.build(request)
    assert caught.value.details["signal"] == 11
    assert "exit_code" not in caught.value.details


def test_all_of_a_fast_log_arrives(client: cupola.sync.Client, probe: FileNode) -> None:
    size = 0

    def count(log: Log) -> None:
        nonlocal size
        size += len(log.data)

    request = shell("/inputs/probe chatter 40; : > out", inputs={Name(b"probe"): probe})
    result = client.build(request, on_log=count)
    assert size == 40 << 20
    assert result.log is not None
    assert result.log.size == 40 << 20


def test_a_log_without_end_ends_the_build(
    client: cupola.sync.Client, daemon: PrivateDaemon, probe: FileNode
) -> None:
    before = _resident(daemon.pid)
    request = shell("/inputs/probe chatter 100000", inputs={Name(b"probe"): probe})
    with pytest.raises(BuildError) as caught:
        client.build(request)
    assert (caught.value.code, caught.value.details["limit"]) == ("log_limit", 64 << 20)
    node = cupola.notation.from_text(caught.value.details["log"])
    assert isinstance(node, FileNode)
    assert node.size == 64 << 20
    assert _resident(daemon.pid) < before + 32 * 1024


def _resident(pid: int) -> int:
    """Resident memory in KiB."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def test_a_client_that_does_not_read_stalls_nobody(
    client: cupola.sync.Client, daemon: PrivateDaemon, probe: FileNode
) -> None:
    """Its build goes on to its end, others build meanwhile, and memory stays where it was."""
    before = _resident(daemon.pid)
    request = shell("/inputs/probe chatter 60; : > out", inputs={Name(b"probe"): probe})
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
        deaf.connect(str(daemon.socket))
        for message in (Hello((1,), "deaf"), Build(request)):
            deaf.sendall(framing.encode_frame(wire.encode(message)))
        assert eventually(lambda: client.status().running == 1)
        others = [threading.Thread(target=lambda: client.build(shell(": > out"))) for _ in range(4)]
        for thread in others:
            thread.start()
        for thread in others:
            thread.join(20)
            assert not thread.is_alive()
        assert eventually(lambda: not list((daemon.state / "bundles").iterdir()), 30)
        assert _resident(daemon.pid) < before + 32 * 1024


def test_output_held_open_after_the_end_delays_nothing(client: cupola.sync.Client) -> None:
    """What a build leaves running dies with it, and so do its ends of the pipes."""
    start = time.monotonic()
    client.build(shell("sleep 1000 & : > out"))
    client.build(shell("exec >&- 2>&-; sleep 0.1; : > out"))
    assert time.monotonic() - start < 5

"""What the doctor says of a daemon's answers; a socket that gives those that a test wants."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cupola import framing, wire
from cupola.doctor import System, Verdict
from cupola.doctor.daemon import check_daemon
from cupola.messages import Failure, Reply, RunningBuild, StatusReport, Welcome
from cupola.version import __version__

UID = 61000
LIMITS = {"queued_builds": 2, "memory": 1024**3}


def report(**changes: Any) -> StatusReport:
    """A report of a daemon that is well, with these changes."""
    healthy = {
        "server": f"cupolad {__version__}",
        "uptime_ms": 1,
        "max_builds": 4,
        "running": 1,
        "queued": 0,
        "connections": 1,
        "store_blobs": 0,
        "store_directories": 0,
        "store_bytes": 0,
        "draining": False,
        "limits": LIMITS,
        "builds": (),
    }
    return StatusReport(**{**healthy, **changes})


def builds(*uids: int) -> tuple[RunningBuild, ...]:
    return tuple(RunningBuild(f"{i:032}", uid, "queued", 1, ()) for i, uid in enumerate(uids))


@contextmanager
def answering(path: Path, replies: Sequence[Reply]) -> Iterator[System]:
    """A machine whose daemon gives these replies to the first messages, and then hangs up."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=_answer, args=(listener, replies))
        thread.start()
        try:
            yield System(socket=path, uid=UID)
        finally:
            thread.join(30)


def _answer(listener: socket.socket, replies: Sequence[Reply]) -> None:
    with listener.accept()[0] as connection:
        for reply in replies:
            _skip_message(connection)
            connection.sendall(framing.encode_frame(wire.encode(reply)))
        _skip_message(connection)


def _skip_message(connection: socket.socket) -> None:
    if start := connection.recv(4, socket.MSG_WAITALL):
        connection.recv(struct.unpack(">I", start)[0], socket.MSG_WAITALL)


WELCOME = Welcome(1, f"cupolad {__version__}", LIMITS)


@pytest.mark.parametrize(
    ("replies", "verdict", "found", "remedy"),
    [
        ([WELCOME, report()], "ok", "1 of at most 4 builds run, 0 wait", None),
        ([WELCOME, report()], "ok", "a build may have 1.0 GiB of memory, a user 2 builds", None),
        ([WELCOME, report(limits={})], "ok", "any amount of memory, a user any number of", None),
        ([WELCOME, report(builds=builds(UID, 5, 6))], "ok", "answers in", None),
        (
            [WELCOME, report(server="cupolad 99.1")],
            "warning",
            f"the daemon is cupolad 99.1, this client is {__version__}",
            "upgrade the older",
        ),
        ([WELCOME, report(draining=True)], "warning", "about to stop, and waits for 1", "wait"),
        (
            [WELCOME, report(builds=builds(UID, 5, UID))],
            "warning",
            "2 of at most 2 builds of yours run or wait",
            "`queued_builds`",
        ),
        (
            [WELCOME, report(draining=True, server="x")],
            "warning",
            "; the daemon is about to stop",
            "; wait",
        ),
        (
            [Failure("quota_exceeded", "you have 64 connections open; close one", {})],
            "problem",
            "you have 64 connections open; close one (quota_exceeded)",
            "end some of your clients",
        ),
        (
            [Failure("denied", "builds may not use the daemon", {})],
            "problem",
            "(denied)",
            "outside of a build",
        ),
        ([WELCOME], "problem", "closed the connection", "journalctl -u cupolad"),
        ([report()], "problem", "broke the protocol", "journalctl -u cupolad"),
    ],
)
def test_answers(
    tmp_path: Path, replies: list[Reply], verdict: str, found: str, remedy: str | None
) -> None:
    with answering(tmp_path / "s", replies) as system:
        finding = check_daemon(system)
    assert finding.verdict == verdict, finding
    assert found in finding.found
    assert (finding.remedy is None) == (remedy is None)
    assert (remedy or "") in (finding.remedy or "")


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    for path in (tmp_path / "s", tmp_path / "absent", Path("/" + "x" * 300)):
        finding = check_daemon(System(socket=path, root=Path("/")))
        assert finding.verdict is Verdict.PROBLEM
        assert "(no_daemon)" in finding.found
        assert finding.remedy is not None
        assert "put right what else is found wrong" in finding.remedy

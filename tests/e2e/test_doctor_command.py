"""`cupola doctor` of ordinary users: a daemon that is well, and one that is not."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pty
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import NOBODY, User
from cupola.doctor import CHECKS
from cupolad.testing import PrivateDaemon

ENDLESS = """
command_args = ["/bin/sh", "-c", "sleep 1000"]
outputs = ["build/out"]
constraints.provide_bin_sh = true
"""

SOON = 12
"""Seconds; the longest check takes 7."""


def by_name(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The findings of `cupola doctor --json`, which are those of all checks."""
    answer = json.loads(done.stdout)
    assert set(answer) == {"healthy", "findings"}
    findings = {finding["check"]: finding for finding in answer["findings"]}
    assert list(findings) == [check.name for check in CHECKS]
    for finding in findings.values():
        assert set(finding) == {"check", "verdict", "found", "remedy"}
        assert (finding["verdict"] == "ok") == (finding["remedy"] is None)
    problems = [f for f in findings.values() if f["verdict"] == "problem"]
    assert answer["healthy"] == (not problems)
    assert done.returncode == (1 if problems else 0), done
    return findings


def examine(daemon: PrivateDaemon, user: User) -> dict[str, Any]:
    """What `cupola doctor` tells a user of a daemon, within seconds."""
    start = time.monotonic()
    findings = by_name(user.run(daemon, "doctor", "--json"))
    assert time.monotonic() - start < SOON
    return findings


@contextlib.contextmanager
def socket_of(daemon: PrivateDaemon, gid: int, mode: int) -> Iterator[None]:
    """The daemon's socket, with this group and mode."""
    os.chown(daemon.socket, 0, gid)
    daemon.socket.chmod(mode)
    try:
        yield
    finally:
        os.chown(daemon.socket, 0, 0)
        daemon.socket.chmod(0o666)


def test_a_healthy_machine(daemon: PrivateDaemon, user: User) -> None:
    findings = examine(daemon, user)
    for name in ("kernel", "namespaces", "cgroups", "fuse", "runc", "shell", "socket", "group"):
        assert findings[name]["verdict"] == "ok", findings[name]
    assert findings["daemon"]["verdict"] == "ok"
    assert "answers in" in findings["daemon"]["found"]
    assert not [f for f in findings.values() if f["verdict"] == "problem"]


def test_text(daemon: PrivateDaemon, user: User) -> None:
    done = user.run(daemon, "doctor")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nok       daemon: cupolad " in done.stdout
    assert "\x1b" not in done.stdout


def test_a_table_on_a_terminal(daemon: PrivateDaemon, user: User) -> None:
    master, slave = pty.openpty()
    with user.popen(daemon, "doctor", stdout=slave) as process:
        os.close(slave)
        shown = b""
        with contextlib.suppress(OSError):
            while piece := os.read(master, 10_000):
                shown += piece
        assert process.wait(SOON) == 0
    os.close(master)
    assert b"\x1b[" in shown
    assert b"daemon" in shown


def test_a_reader_that_has_enough(daemon: PrivateDaemon, user: User) -> None:
    with user.popen(daemon, "doctor") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(SOON) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_daemon_that_hangs(daemon: PrivateDaemon, user: User) -> None:
    daemon.signal(signal.SIGSTOP)
    try:
        findings = examine(daemon, user)
    finally:
        daemon.signal(signal.SIGCONT)
    assert findings["daemon"]["verdict"] == "problem"
    assert "does not answer within 5 s" in findings["daemon"]["found"]
    assert findings["socket"]["verdict"] == "ok"


def test_a_socket_that_nobody_listens_at(daemon: PrivateDaemon, user: User) -> None:
    dead = user.home / "dead"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(dead))
    dead.chmod(0o666)
    with user.command.popen(
        user.uid, "--socket", dead, "doctor", "--json", stdout=subprocess.PIPE, text=True
    ) as process:
        out, _ = process.communicate(timeout=SOON)
    findings = by_name(subprocess.CompletedProcess([], process.returncode, out))
    assert "no daemon listens" in findings["daemon"]["found"]
    assert findings["socket"]["verdict"] == "ok"


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-", ">&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(daemon: PrivateDaemon, user: User, closed: str) -> None:
    done = subprocess.run(
        [
            *("sh", "-c", f'exec "$@" {closed}', "sh"),
            *(*user.command.arguments, "--socket", daemon.socket, "doctor", "--json"),
        ],
        user=user.uid,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    if ">&-" not in closed.split():
        assert by_name(done)["daemon"]["verdict"] == "ok"


def test_a_relative_socket(daemon: PrivateDaemon, user: User) -> None:
    with user.command.popen(
        user.uid,
        *("doctor", "--json"),
        stdout=subprocess.PIPE,
        text=True,
        cwd=daemon.socket.parent,
        env={"CUPOLA_SOCKET": daemon.socket.name},
    ) as process:
        out, _ = process.communicate(timeout=SOON)
    findings = by_name(subprocess.CompletedProcess([], process.returncode, out))
    assert findings["daemon"]["verdict"] == "ok"
    assert findings["socket"]["found"].startswith("cupola.sock is root:")


def test_a_socket_of_root_alone(daemon: PrivateDaemon, user: User) -> None:
    with socket_of(daemon, 0, 0o660):
        findings = examine(daemon, user)
    assert findings["socket"]["verdict"] == "problem"
    assert "SocketGroup=cupola" in findings["socket"]["remedy"]
    assert "you may not use" in findings["daemon"]["found"]


def test_membership(daemon: PrivateDaemon, user: User, users: list[int]) -> None:
    """Not a member, then one by the database alone, then in the session too."""
    name, group = pwd.getpwuid(user.uid).pw_name, grp.getgrgid(users[1])
    with socket_of(daemon, group.gr_gid, 0o660):
        finding = examine(daemon, user)["group"]
        assert finding["verdict"] == "problem"
        assert f"`sudo usermod -aG {group.gr_name} {name}`" in finding["remedy"]
        subprocess.run(["usermod", "-aG", group.gr_name, name], check=True)
        try:
            finding = examine(daemon, user)["group"]
            assert finding["verdict"] == "problem"
            assert "after this session began" in finding["found"]
            done = subprocess.run(
                [*user.command.arguments, "--socket", daemon.socket, "doctor", "--json"],
                user=user.uid,
                extra_groups=[group.gr_gid],
                capture_output=True,
                text=True,
                check=False,
            )
            assert by_name(done)["group"]["found"] == f"{name} is in the group {group.gr_name}"
        finally:
            subprocess.run(["gpasswd", "-d", name, group.gr_name], check=True, capture_output=True)


def test_a_directory_that_one_may_not_pass(daemon: PrivateDaemon, user: User) -> None:
    daemon.directory.chmod(0o700)
    try:
        finding = examine(daemon, user)["socket"]
    finally:
        daemon.directory.chmod(0o755)
    assert finding["verdict"] == "problem"
    assert "may not enter a directory above" in finding["found"]


def test_a_user_who_has_no_build_left(user: User) -> None:
    with (
        PrivateDaemon("[limits]\nqueued_builds = 1\n") as daemon,
        user.popen(daemon, "build", "-", stdin=subprocess.PIPE) as build,
    ):
        assert build.stdin is not None
        assert build.stderr is not None
        build.stdin.write(ENDLESS.encode())
        build.stdin.close()
        assert b"queued" in build.stderr.readline()
        finding = examine(daemon, user)["daemon"]
        build.terminate()
    assert finding["verdict"] == "warning"
    assert "1 of at most 1 builds of yours run or wait" in finding["found"]


def test_a_user_who_has_no_process_left(daemon: PrivateDaemon, user: User) -> None:
    done = subprocess.run(
        ["prlimit", "--nproc=1", *user.command.arguments, "doctor", "--json"],
        user=user.uid,
        group=user.uid,
        extra_groups=[],
        cwd=user.home,
        capture_output=True,
        text=True,
        check=False,
    )
    findings = by_name(done)
    assert {finding["verdict"] for finding in findings.values()} == {"unknown"}
    assert "cannot start a process for the check" in findings["kernel"]["found"]


@pytest.mark.parametrize("uid", [0, NOBODY])
def test_a_file_system_that_does_not_answer(daemon: PrivateDaemon, user: User, uid: int) -> None:
    script = Path(__file__).with_name("stuck_state.py")
    start = time.monotonic()
    done = subprocess.run(
        [
            *("unshare", "--mount", "--propagation=private", sys.executable, script, str(uid)),
            *(*user.command.arguments, "--socket", daemon.socket, "doctor", "--json"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert time.monotonic() - start < SOON
    findings = by_name(done)
    assert findings["state"]["verdict"] == "problem"
    assert "a program, or a file system, hangs" in findings["state"]["found"]
    assert findings["daemon"]["verdict"] == "ok"


def test_usage(daemon: PrivateDaemon, user: User) -> None:
    done = user.run(daemon, "doctor", "nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: cupola" in done.stderr
    text = user.run(daemon, "doctor", "--help").stdout
    for word in ("cgroups", "warning", "exit status", "--json", '"healthy"'):
        assert word in text
    assert "doctor" in user.run(daemon, "--help").stdout

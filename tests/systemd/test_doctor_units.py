"""What the doctor tells users of a machine with a real systemd, well or ill."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from installed import MEMBER, STRANGER
from machine import Machine

pytestmark = [pytest.mark.root, pytest.mark.fuse, pytest.mark.runc]

SOON = 20
"""Seconds; what hangs takes 7 and then 4."""


@pytest.fixture
def healthy(stopped: Machine) -> Iterator[Machine]:
    """The machine, with the socket enabled; afterwards, whatever a test broke is mended."""
    stopped.check("systemctl", "enable", "--quiet", "cupolad.socket")
    try:
        yield stopped
    finally:
        config = stopped.root / "etc/cupola/cupolad.toml"
        config.unlink(missing_ok=True)
        stopped.run("systemctl", "kill", "--signal=CONT", "cupolad", "dbus")
        stopped.check("systemctl", "enable", "--quiet", "cupolad.socket")


def doctor(
    machine: Machine, *prefix: str, user: int | None = MEMBER
) -> tuple[bool, dict[str, Any]]:
    """Whether the machine is called healthy, and each finding by its check; within seconds."""
    start = time.monotonic()
    done = machine.run(*prefix, "cupola", "doctor", "--json", user=user)
    assert time.monotonic() - start < SOON
    answer = json.loads(done.stdout)
    assert done.returncode == (0 if answer["healthy"] else 1), done
    return answer["healthy"], {finding["check"]: finding for finding in answer["findings"]}


def problems(findings: dict[str, Any]) -> set[str]:
    """The names of the checks that found one."""
    return {name for name, finding in findings.items() if finding["verdict"] == "problem"}


@pytest.mark.parametrize("user", [MEMBER, None], ids=["member", "root"])
def test_all_is_well(healthy: Machine, user: int | None) -> None:
    is_healthy, findings = doctor(healthy, user=user)
    assert is_healthy
    ill = [finding for finding in findings.values() if finding["verdict"] != "ok"]
    assert ill == []
    # The question itself has started the daemon.
    assert "is active" in findings["cupolad.service"]["found"]


def test_a_stranger_is_told_of_the_group(healthy: Machine) -> None:
    is_healthy, findings = doctor(healthy, user=STRANGER)
    assert not is_healthy
    assert problems(findings) == {"socket", "group", "daemon"}
    assert findings["group"]["remedy"] == ("`sudo usermod -aG cupola stranger`, then log in again")


def test_a_member_since_the_session_began(healthy: Machine) -> None:
    healthy.check("usermod", "-aG", "cupola", "stranger")
    try:
        # As a session that began before: with the user's own group alone.
        groups = ["setpriv", "--clear-groups", f"--reuid={STRANGER}", f"--regid={STRANGER}"]
        _, findings = doctor(healthy, *groups, user=None)
        assert "after this session began" in findings["group"]["found"]
        assert "newgrp cupola" in findings["group"]["remedy"]
        assert doctor(healthy, user=STRANGER)[0]
    finally:
        healthy.check("gpasswd", "--delete", "stranger", "cupola")


def test_a_socket_that_was_stopped(healthy: Machine) -> None:
    healthy.check("systemctl", "stop", "cupolad.socket")
    try:
        is_healthy, findings = doctor(healthy)
    finally:
        healthy.check("systemctl", "start", "cupolad.socket")
    assert not is_healthy
    assert {"cupolad.socket", "daemon"} <= problems(findings)
    assert findings["cupolad.socket"]["remedy"] == "`sudo systemctl enable --now cupolad.socket`"


def test_the_remedy_for_a_stopped_socket_is_one(healthy: Machine) -> None:
    healthy.check("systemctl", "disable", "--now", "--quiet", "cupolad.socket")
    _, findings = doctor(healthy)
    command = findings["cupolad.socket"]["remedy"].strip("`").removeprefix("sudo ").split()
    healthy.check(*command)
    assert doctor(healthy)[0]


def test_a_socket_that_will_be_gone(healthy: Machine) -> None:
    healthy.check("systemctl", "disable", "--quiet", "cupolad.socket")
    is_healthy, findings = doctor(healthy)
    assert is_healthy
    assert findings["cupolad.socket"]["verdict"] == "warning"
    assert findings["cupolad.socket"]["remedy"] == "`sudo systemctl enable cupolad.socket`"


def test_a_service_that_cannot_start(healthy: Machine) -> None:
    """A configuration that is of no use: while systemd tries, and when it has given up."""
    config = healthy.root / "etc/cupola/cupolad.toml"
    config.parent.mkdir(exist_ok=True)
    config.write_text("nonsense = 1\n")
    for _ in range(2):
        is_healthy, findings = doctor(healthy)
        assert not is_healthy
        assert {"cupolad.service", "daemon"} <= problems(findings)
        service = findings["cupolad.service"]
        assert "status 78): its configuration is wrong" in service["found"]
        assert service["remedy"].startswith("`sudo cupolad --check-config` says where")
        _wait_until_given_up(healthy)
    assert "has failed" in findings["cupolad.socket"]["found"]
    config.unlink()
    # The last of the remedies, which is for an administrator's shell.
    command = service["remedy"].split("`")[-2].replace("sudo ", "")
    healthy.check("sh", "-c", command)
    assert doctor(healthy)[0]


def _wait_until_given_up(machine: Machine) -> None:
    deadline = time.monotonic() + SOON
    while machine.run("systemctl", "is-failed", "--quiet", "cupolad.socket").returncode != 0:
        assert time.monotonic() < deadline
        machine.run("cupola", "status")


def test_a_daemon_that_hangs(healthy: Machine) -> None:
    assert doctor(healthy)[0]
    healthy.check("systemctl", "kill", "--kill-whom=main", "--signal=STOP", "cupolad")
    is_healthy, findings = doctor(healthy)
    assert not is_healthy
    assert problems(findings) == {"daemon"}
    assert "does not answer within 5 s" in findings["daemon"]["found"]
    assert "`sudo systemctl restart cupolad.service`" in findings["daemon"]["remedy"]


def test_a_bus_that_hangs(healthy: Machine) -> None:
    """An ordinary user's systemctl then hangs; root's needs no bus."""
    with _stopped_bus(healthy):
        is_healthy, findings = doctor(healthy)
        assert not is_healthy
        assert problems(findings) == {"systemd"}
        assert "systemd does not answer" in findings["systemd"]["found"]
        for name in ("cupolad.socket", "cupolad.service"):
            assert findings[name]["verdict"] == "unknown"
            assert "sudo cupola doctor" in findings[name]["remedy"]
        assert findings["daemon"]["verdict"] == "ok"
        assert doctor(healthy, user=None)[0]


@contextlib.contextmanager
def _stopped_bus(machine: Machine) -> Iterator[None]:
    pid = machine.check("systemctl", "show", "--value", "--property=MainPID", "dbus").strip()
    machine.check("kill", "-STOP", pid)
    try:
        yield
    finally:
        machine.check("kill", "-CONT", pid)


def test_units_that_are_not_there(healthy: Machine) -> None:
    units = healthy.root / "etc/systemd/system"
    healthy.check("systemctl", "disable", "--now", "--quiet", "cupolad.socket")
    kept = {name: (units / name).read_text() for name in ("cupolad.socket", "cupolad.service")}
    for name in kept:
        (units / name).unlink()
    healthy.check("systemctl", "daemon-reload")
    try:
        _, findings = doctor(healthy)
    finally:
        for name, text in kept.items():
            (units / name).write_text(text)
        healthy.check("systemctl", "daemon-reload")
    for name in kept:
        assert findings[name]["found"] == f"{name} is not installed"
    changed = units / "cupolad.service"
    changed.write_text(changed.read_text() + "# changed\n")
    healthy.check("systemctl", "enable", "--now", "--quiet", "cupolad.socket")
    _, findings = doctor(healthy)
    assert findings["cupolad.service"]["verdict"] == "ok", "enabling has reloaded it"
    changed.write_text(kept["cupolad.service"])
    assert "changed on disk" in doctor(healthy)[1]["cupolad.service"]["found"]
    healthy.check("systemctl", "daemon-reload")


def test_a_machine_whose_bus_is_gone(healthy: Machine) -> None:
    healthy.check("systemctl", "stop", "dbus.socket", "dbus.service")
    try:
        is_healthy, findings = doctor(healthy)
    finally:
        healthy.check("systemctl", "start", "dbus.socket")
    assert is_healthy
    assert findings["systemd"]["verdict"] == "unknown"
    assert "bus" in findings["systemd"]["found"]

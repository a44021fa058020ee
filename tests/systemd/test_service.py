"""The service as an administrator meets it: activation, status, reload, watchdog, journal."""

from __future__ import annotations

import json

import pytest
from installed import MEMBER, STRANGER
from machine import Machine
from members import begin, build, building, result_of, show, units

from waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.fuse, pytest.mark.runc]


def test_the_first_client_starts_the_daemon(stopped: Machine) -> None:
    assert show(stopped, "cupolad", "ActiveState")["ActiveState"] == "inactive"
    assert build(stopped, ": > out")["status"] == "built"
    assert show(stopped, "cupolad", "ActiveState", "Slice") == {
        "ActiveState": "active",
        "Slice": "cupola.slice",
    }


def test_who_is_not_in_the_group_is_refused(machine: Machine) -> None:
    done = machine.run("cupola", "status", user=STRANGER)
    assert done.returncode == 69
    assert "ask the administrator to add you to its group" in done.stderr
    assert machine.run("cupola", "status", user=MEMBER).returncode == 0


def test_the_status_line_tells_what_goes_on(machine: Machine) -> None:
    def status() -> str:
        return show(machine, "cupolad", "StatusText")["StatusText"]

    build(machine, ": > out")
    assert eventually(lambda: status().startswith("0 building, 0 queued, store "))
    builds = [begin(machine, "sleep 1000") for _ in range(4)]
    try:
        assert eventually(lambda: " queued for 1 user, store " in status())
    finally:
        machine.check("pkill", f"--uid={MEMBER}", "--full", "build -")
        for process in builds:
            process.communicate(timeout=20)
    assert eventually(lambda: status().startswith("0 building, 0 queued, store "))


def test_a_reload_leaves_running_builds_alone(machine: Machine) -> None:
    config = "/etc/cupola/cupolad.toml"
    with building(machine, "while [ ! -e go ]; do sleep 0.05; done; : > out") as (unit, running):
        machine.write(config, "[limits]\noutputs = 1\n")
        try:
            machine.check("systemctl", "reload", "cupolad")
            assert unit in units(machine)
            machine.check("sh", "-c", "cd /var/lib/cupola/bundles/*/scratch/0 && touch go")
            assert result_of(running)[0] == 0
            limits = json.loads(machine.check("cupola", "status", "--json"))["limits"]
            assert limits["outputs"] == 1
        finally:
            machine.check("rm", config)
    machine.check("systemctl", "reload", "cupolad")


def test_a_stalled_daemon_is_killed_and_the_next_request_works(stopped: Machine) -> None:
    drop_in = "/etc/systemd/system/cupolad.service.d/watchdog.conf"
    stopped.write(drop_in, "[Service]\nWatchdogSec=1s\nTimeoutAbortSec=1s\n")
    stopped.check("systemctl", "daemon-reload")
    try:
        build(stopped, ": > out")
        pid = show(stopped, "cupolad", "MainPID")["MainPID"]

        def fed() -> int:
            return int(show(stopped, "cupolad", "WatchdogTimestampMonotonic").popitem()[1])

        first = fed()
        assert eventually(lambda: fed() > first + 2_500_000)
        assert show(stopped, "cupolad", "MainPID")["MainPID"] == pid
        stopped.check("kill", "-STOP", pid)
        assert eventually(lambda: show(stopped, "cupolad", "MainPID")["MainPID"] not in (pid, "0"))
        assert "watchdog" in stopped.check("journalctl", "-u", "cupolad").lower()
        assert build(stopped, ": > out")["status"] == "built"
    finally:
        stopped.check("rm", drop_in)
        stopped.check("systemctl", "daemon-reload")

"""The daemon comes and goes, by itself, by hand or by force; its clients need not notice."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from installed import MEMBER
from machine import Machine
from members import begin, build, building, journal, result_of, show, units
from remains import remains

from waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.fuse, pytest.mark.runc]


@pytest.fixture
def configured(machine: Machine) -> Iterator[Machine]:
    """The machine; what a test writes to the drop-in directory is removed again."""
    folder = machine.root / "etc/cupola/cupolad.toml.d"
    folder.mkdir(parents=True, exist_ok=True)
    yield machine
    for file in folder.iterdir():
        file.unlink()
    machine.check("systemctl", "restart", "cupolad")


def configure(machine: Machine, text: str) -> None:
    """Let the daemon have this configuration from now on."""
    (machine.root / "etc/cupola/cupolad.toml.d/test.toml").write_text(text)
    machine.check("systemctl", "restart", "cupolad")


def state(machine: Machine) -> str:
    """What systemd says of the daemon."""
    return show(machine, "cupolad", "ActiveState")["ActiveState"]


def test_a_cold_daemon_builds_within_a_second(stopped: Machine) -> None:
    took = []
    for _ in range(3):
        stopped.check("systemctl", "stop", "cupolad.service")
        start = time.monotonic()
        assert build(stopped, ": > out")["status"] == "built"
        took.append(time.monotonic() - start)
    assert min(took) <= 1, took


def test_an_idle_daemon_ends_and_the_next_client_starts_it(configured: Machine) -> None:
    configure(configured, "[daemon]\nidle_exit = 1\n")
    for _ in range(2):
        assert build(configured, ": > out")["status"] == "built"
        assert eventually(lambda: state(configured) == "inactive")
        assert remains(configured) == []
        assert show(configured, "cupolad", "Result")["Result"] == "success"
    with building(configured, "sleep 2.5; : > out") as (_, process):
        assert result_of(process)[0] == 0


def test_twenty_restarts_under_load_refuse_nobody(configured: Machine) -> None:
    """Builds that run are waited for, those that wait are asked for again, by their clients."""
    configure(configured, "[scheduler]\nmax_builds = 3\n")
    processes = []
    for round_ in range(20):
        processes += [begin(configured, f"sleep 0.2; echo {round_} > out") for _ in range(2)]
        configured.check("systemctl", "restart", "cupolad")
    results = [result_of(process) for process in processes]
    assert [status for status, _, _ in results] == [0] * 40, [r for r in results if r[0]]
    assert len({result["build_id"] for _, result, _ in results}) == 40
    assert remains(configured) == []


def test_a_restart_cancels_what_does_not_end_in_time(configured: Machine) -> None:
    configure(configured, "[daemon]\ndrain = 0.5\n")
    with building(configured, "sleep 100") as (unit, process):
        start = time.monotonic()
        configured.check("systemctl", "restart", "cupolad")
        assert time.monotonic() - start < 10
        assert unit not in units(configured)
        assert eventually(lambda: units(configured)), "the client asks the next daemon"
        configured.check("systemctl", "stop", "cupola-build-*")
        assert result_of(process)[0] == 130
    assert remains(configured) == []


def test_a_crash_loses_no_build(machine: Machine) -> None:
    with building(machine, "sleep 1; echo x > out") as (_, process):
        machine.check("systemctl", "kill", "--signal=SEGV", "--kill-whom=main", "cupolad")
        status, result, said = result_of(process)
    assert (status, result["status"]) == (0, "built")
    assert "asking again" in said
    assert remains(machine) == []


@pytest.mark.parametrize("delay_ms", range(0, 120, 8))
def test_sigkill_at_any_moment_leaves_nothing(machine: Machine, delay_ms: int) -> None:
    """A build's whole life takes some 100 ms; it is hit at one moment of it after the other."""
    build(machine, ": > out")
    process = begin(machine, "head -c 30000000 /dev/urandom > out")
    entries = journal(machine, "--lines=1", "-u", "cupolad")
    since = int(entries[-1]["__REALTIME_TIMESTAMP"]) if entries else 0
    assert eventually(lambda: _accepted(machine, since))
    time.sleep(delay_ms / 1000)
    machine.check("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "cupolad")
    assert result_of(process)[0] == 0
    assert eventually(lambda: remains(machine) == []), remains(machine)


def _accepted(machine: Machine, since: int) -> bool:
    """Whether a build was accepted after that time, in microseconds."""
    accepted = "MESSAGE_ID=398a8f0446c7497aa311ac2f55292afd"
    return any(
        int(entry["__REALTIME_TIMESTAMP"]) > since
        for entry in journal(machine, "--lines=1", accepted)
    )


def test_a_daily_timer_cleans_up_after_a_daemon_that_nobody_started_again(
    machine: Machine,
) -> None:
    machine.check("systemctl", "start", "cupola-clean.timer")
    assert "cupola-clean.timer" in machine.check("systemctl", "list-timers", "--no-pager")
    assert build(machine, ": > out")["status"] == "built"
    machine.check("systemctl", "start", "cupola-clean.service")
    assert "a daemon is running" in machine.check("journalctl", "-u", "cupola-clean")
    machine.check("systemctl", "stop", "cupolad.socket", "cupolad.service")
    (machine.root / "var/lib/cupola/bundles/dead").mkdir()
    machine.check("systemctl", "start", "cupola-clean.service")
    assert remains(machine) == []
    machine.check("systemctl", "start", "cupolad.socket")


def test_fifty_dead_builds_are_cleared_away_in_ten_seconds(configured: Machine) -> None:
    configure(configured, "[scheduler]\nmax_builds = 50\n")
    processes = [begin(configured, "sleep 1000") for _ in range(50)]
    assert eventually(lambda: len(units(configured)) == 50, 60)
    pid = show(configured, "cupolad", "MainPID")["MainPID"]
    start = time.monotonic()
    clients = f"pkill --signal=KILL --uid={MEMBER} --full 'build -'"
    configured.check("sh", "-c", f"kill -KILL {pid}; {clients}")
    assert eventually(
        lambda: (
            state(configured) == "active"
            and show(configured, "cupolad", "MainPID")["MainPID"] not in (pid, "0")
        ),
        30,
    )
    took = time.monotonic() - start
    for process in processes:
        process.communicate(timeout=30)
    assert took <= 10, took
    assert units(configured) == set()
    assert eventually(lambda: remains(configured) == []), remains(configured)
    (recovered,) = journal(configured, "--lines=1", "MESSAGE_ID=0479fdf860834c3e98599a3247f8287a")
    assert int(recovered["CUPOLA_BUNDLES"]) == 50

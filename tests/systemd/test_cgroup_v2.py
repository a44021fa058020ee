"""Limits, accounts and clean-up where cgroup v2 is all there is. One machine serves all tests."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from guest import PLACE
from members import begin, build, result_of, show
from remains import build_groups, remains
from uml import UmlMachine

from waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.runc, pytest.mark.uml]

MEMORY, PROCESSES, WALL_SECONDS = 64 << 20, 40, 8
CONFIG = f"""
[limits]
memory = {MEMORY}
processes = {PROCESSES}
wall_seconds = {WALL_SECONDS}
"""

INPUT = f'inputs.unit = {{ path = "{PLACE}/systemd/cupolad.service" }}\n'


def configure(uml: UmlMachine, config: str) -> None:
    """Put a configuration in force, at once or when the daemon starts."""
    uml.write("/etc/cupola/cupolad.toml", config)
    uml.check("systemctl", "try-reload-or-restart", "cupolad")


@pytest.fixture(scope="module", autouse=True)
def limited(uml: UmlMachine) -> None:
    """The daemon has tight limits."""
    configure(uml, CONFIG)


@contextmanager
def configured(uml: UmlMachine, config: str) -> Iterator[None]:
    """Another configuration, for a while."""
    configure(uml, config)
    try:
        yield
    finally:
        configure(uml, CONFIG)


@pytest.fixture(autouse=True)
def nothing_left(uml: UmlMachine) -> Iterator[None]:
    """After each test nothing of its builds is there any more."""
    yield
    assert eventually(lambda: remains(uml) == []), remains(uml)


@contextmanager
def building(uml: UmlMachine, script: str) -> Iterator[subprocess.Popen[str]]:
    """A build, with an input, that runs meanwhile; it prints its result as JSON."""
    with begin(uml, script, more=INPUT) as process:
        assert eventually(lambda: processes(uml))
        yield process


def error_of(process: subprocess.Popen[str]) -> tuple[str, int | None]:
    """Code and limit of the error that a build ends with."""
    error = result_of(process)[1]["error"]
    return error["code"], error.get("limit")


def processes(uml: UmlMachine) -> int:
    """How many the only build there is has."""
    groups = build_groups(uml)
    return int(uml.run("cat", *(group / "container/pids.current" for group in groups)).stdout or 0)


@contextmanager
def daemon_unharmed(uml: UmlMachine) -> Iterator[None]:
    """Meanwhile the daemon goes on, and nothing in its own cgroup is killed for want of memory."""
    uml.check("systemctl", "start", "cupolad")
    before = show(uml, "cupolad", "MainPID", "NRestarts")
    yield
    assert show(uml, "cupolad", "MainPID", "NRestarts") == before
    group = show(uml, "cupolad", "ControlGroup")["ControlGroup"]
    events = uml.check("cat", f"/sys/fs/cgroup{group}/memory.events")
    assert {"oom 0", "oom_kill 0"} <= set(events.splitlines())


def test_the_first_client_starts_the_daemon(uml: UmlMachine) -> None:
    assert uml.check("stat", "--file-system", "--format=%T", "/sys/fs/cgroup") == "cgroup2fs\n"
    uml.check("systemctl", "stop", "cupolad.service")
    assert show(uml, "cupolad", "ActiveState")["ActiveState"] == "inactive"
    assert build(uml, ": > out")["status"] == "built"
    status = 'Status: "0 building, 0 queued, store '
    assert eventually(lambda: status in uml.check("systemctl", "status", "cupolad"))


@pytest.mark.parametrize(
    "script",
    [
        "dd if=/dev/zero of=/dev/null bs=100M count=1 || : > out",
        "head -c 100000000 /dev/zero > /tmp/x",
        "(dd if=/dev/zero of=/dev/null bs=100M count=1; :) & wait; : > out",
    ],
)
def test_a_build_that_runs_out_of_memory_ends_alone(uml: UmlMachine, script: str) -> None:
    with daemon_unharmed(uml):
        error = build(uml, script)["error"]
    assert (error["code"], error["limit"]) == ("out_of_memory", MEMORY)


def test_a_build_that_takes_all_memory_of_the_host_ends_alone(uml: UmlMachine) -> None:
    fill = "dd if=/dev/zero of=/dev/null bs=90M count=1000"
    with configured(uml, "[limits]\nmemory = 0\n"), daemon_unharmed(uml):
        error = build(uml, " & ".join([fill] * 6) + " & wait; : > out")["error"]
    assert error["code"] == "out_of_memory"
    assert "it has no limit of its own" in error["message"]


def test_a_fork_bomb_is_held(uml: UmlMachine) -> None:
    script = "(while :; do sleep 1000 & done) || :; sleep 1000; :"
    with building(uml, script) as process:
        assert eventually(lambda: processes(uml) == PROCESSES)
        assert error_of(process) == ("timeout", WALL_SECONDS)


def test_time_runs_out_for_daemons_too(uml: UmlMachine) -> None:
    daemon = 'setsid sh -c "trap : HUP INT TERM; while :; do sleep 1000; done"'
    with building(uml, f"for i in 1 2 3; do {daemon} & done; sleep 1000; :") as process:
        assert eventually(lambda: processes(uml) == 8)
        found = "\n".join(remains(uml))
        kinds = (
            "/sys/fs/cgroup/",
            "/bundles/",
            "/run/cupola/runc/",
            "/mnt/",
            " fuse",
            " sleep 1000",
        )
        assert all(kind in found for kind in kinds), found
        assert error_of(process) == ("timeout", WALL_SECONDS)


def test_a_killed_daemon_leaves_nothing_after_its_next_start(uml: UmlMachine) -> None:
    pid = show(uml, "cupolad", "MainPID")["MainPID"]
    with building(uml, "setsid sleep 1000 & sleep 1000; :") as process:
        assert eventually(lambda: processes(uml) == 3)
        (group,) = build_groups(uml)
        uml.check("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "cupolad")
        assert eventually(lambda: group not in build_groups(uml))
        # The client asks the next daemon for the same.
        assert error_of(process) == ("timeout", WALL_SECONDS)
    assert eventually(lambda: show(uml, "cupolad", "MainPID")["MainPID"] not in (pid, "0"))
    assert build(uml, ": > out")["status"] == "built"


@pytest.mark.parametrize("cpus", [0, 0.5])
def test_what_a_build_used_is_told(uml: UmlMachine, cpus: float) -> None:
    """Between one and two seconds of work, with 30 MiB; with what runc needs to start."""
    script = """
        dd if=/dev/zero of=/dev/null bs=30M count=1
        read now _ < /proc/uptime
        end=$((${now%.*} + 2))
        while [ ${now%.*} -lt $end ]; do read now _ < /proc/uptime; done
        : > out
    """
    with configured(uml, f"{CONFIG}cpus = {cpus}\n"):
        usage = build(uml, script)["usage"]
    assert 30 << 20 < usage["memory_peak"] < MEMORY
    assert 1_000_000 < usage["wall_us"] < WALL_SECONDS * 1_000_000
    most = (cpus or 1) * usage["wall_us"]
    assert most / 2 < usage["cpu_us"] < most + 500_000


def test_the_unit_s_own_group_is_empty_of_processes(uml: UmlMachine) -> None:
    """Else runc would make all below it threaded, without limits of memory."""
    with building(uml, "sleep 1000") as process:
        (group,) = build_groups(uml)
        assert eventually(lambda: processes(uml) == 1)
        assert uml.check("cat", group / "cgroup.procs") == ""
        assert uml.check("cat", group / "cgroup.type", group / "container/cgroup.type") == (
            "domain\ndomain\n"
        )
        assert uml.check("cat", group / "memory.max") == f"{MEMORY}\n"
        assert uml.check("cat", group / "container/pids.max") == f"{PROCESSES}\n"
        assert {"cpu", "io", "memory", "pids"} <= set(
            uml.check("cat", group / "cgroup.controllers").split()
        )
        uml.check("systemctl", "stop", group.name)
        assert error_of(process) == ("cancelled", None)

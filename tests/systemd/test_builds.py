"""Each build is a unit of its own: with its limits, under the administrator's hand, and free."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from machine import Machine
from members import begin, build, building, result_of, show, units
from remains import remains

from waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.fuse, pytest.mark.runc]

CONFIG = """
[scheduler]
max_builds = 4
[limits]
memory = 100000000
processes = 40
cpus = 0.5
wall_seconds = 60
[sandbox]
cpu_weight = 50
io_weight = 200
"""


@pytest.fixture(scope="module")
def limited(machine: Machine) -> Machine:
    """The machine, with limits for its builds."""
    config = machine.root / "etc/cupola/cupolad.toml"
    config.parent.mkdir(exist_ok=True)
    config.write_text(CONFIG)
    machine.check("systemctl", "restart", "cupolad")
    return machine


@pytest.fixture(autouse=True)
def nothing_left(limited: Machine) -> Any:
    """After each test nothing of a build is left in the machine."""
    yield
    assert eventually(lambda: remains(limited) == []), remains(limited)


def test_what_the_unit_says(limited: Machine) -> None:
    with building(limited, "sleep 100") as (unit, _):
        assert show(
            limited,
            unit,
            "Description",
            "Slice",
            "MemoryMax",
            "MemorySwapMax",
            "TasksMax",
            "CPUQuotaPerSecUSec",
            "CPUWeight",
            "IOWeight",
            "RuntimeMaxUSec",
            "Delegate",
        ) == {
            "Description": "cupola build of build/out for member (uid 61001)",
            "Slice": "cupola-builds.slice",
            "MemoryMax": str(100_000_000),
            "MemorySwapMax": "0",
            "TasksMax": str(40 + 64),
            "CPUQuotaPerSecUSec": "500ms",
            "CPUWeight": "50",
            "IOWeight": "200",
            "RuntimeMaxUSec": "1min",
            "Delegate": "yes",
        }
        status = limited.run("systemctl", "status", "--no-pager", unit).stdout
        assert "sleep" in status
        assert "cupola build of build/out for member" in status
        assert unit in limited.check("systemd-cgls", "--no-pager")
        assert unit in limited.check("systemd-cgtop", "--batch", "--iterations=1", "--depth=4")


def test_limits_are_in_force_where_the_kernel_keeps_them(limited: Machine) -> None:
    with building(limited, "sleep 100") as (unit, _):
        group = Path("cupola.slice/cupola-builds.slice") / unit
        v1 = limited.root / "sys/fs/cgroup"
        assert int((v1 / "memory" / group / "memory.limit_in_bytes").read_text()) // 4096 == (
            100_000_000 // 4096
        )
        assert (v1 / "pids" / group / "container/pids.max").read_text() == "40\n"
        assert (v1 / "cpu" / group / "cpu.cfs_quota_us").read_text() == "50000\n"
        assert (v1 / "cpu" / group / "cpu.shares").read_text() == "512\n"


def test_only_the_build_is_in_its_group(limited: Machine) -> None:
    with building(limited, "sleep 100") as (unit, _):
        group = limited.root / "sys/fs/cgroup/pids/cupola.slice/cupola-builds.slice" / unit
        commands = {
            Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]
            for pid in (group / "container/cgroup.procs").read_text().split()
        }
        assert commands <= {"sleep", "/bin/sh"}
        (guard,) = (group / "cgroup.procs").read_text().split()
        assert "unit.sh\0guard" in Path(f"/proc/{guard}/cmdline").read_text()
        daemon = limited.root / "sys/fs/cgroup/pids/cupola.slice/cupolad.service/cgroup.procs"
        for pid in daemon.read_text().split():
            assert "cupolad" in Path(f"/proc/{pid}/cmdline").read_text()


@pytest.mark.parametrize(
    "command",
    [
        ["systemctl", "stop"],
        ["systemctl", "kill"],
        ["systemctl", "kill", "--signal=KILL"],
        ["systemctl", "kill", "--signal=HUP"],
    ],
)
@pytest.mark.parametrize("script", ["sleep 100", "trap : TERM HUP; while :; do sleep 0.1; done"])
def test_an_administrator_ends_a_build(limited: Machine, command: list[str], script: str) -> None:
    with building(limited, script) as (unit, process):
        limited.check(*command, unit)
        status, result, _ = result_of(process)
        assert (status, result["error"]["code"]) == (130, "cancelled")
        assert result["build_id"] in unit
    assert build(limited, ": > out")["status"] == "built"


def test_a_memory_bomb_hits_nobody_else(limited: Machine) -> None:
    daemon = show(limited, "cupolad", "MainPID", "NRestarts")
    result = build(limited, "head -c 200000000 /dev/zero > /tmp/x; : > out")
    assert result["error"]["code"] == "out_of_memory"
    assert build(limited, "x=$(head -c 200000000 /dev/zero | tr '\\0' x); : > out")["error"][
        "code"
    ] == ("out_of_memory")
    assert show(limited, "cupolad", "MainPID", "NRestarts") == daemon


def test_a_fork_bomb_is_held(limited: Machine) -> None:
    result = build(limited, "i=0; while [ $i -lt 100 ]; do sleep 9 & i=$((i+1)); done; : > out")
    assert result["error"]["code"] == "build_failed"
    assert "fork" in " ".join(result["error"]["log_tail"])


def test_a_build_that_takes_too_long(limited: Machine) -> None:
    drop_in = limited.root / "etc/cupola/cupolad.toml.d/short.toml"
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text("[limits]\nwall_seconds = 1\n")
    limited.check("systemctl", "reload", "cupolad")
    try:
        assert build(limited, "sleep 100")["error"]["code"] == "timeout"
    finally:
        drop_in.unlink()
        limited.check("systemctl", "reload", "cupolad")


def test_how_a_program_ended_is_told_exactly(limited: Machine, tmp_path: Path) -> None:
    assert build(limited, "exit 139")["error"]["exit_code"] == 139
    assert build(limited, "ulimit -t 1; while :; do :; done")["error"].get("signal") in (
        None,
        int(signal.SIGXCPU),
    )


def test_a_client_that_goes_takes_its_build_along(limited: Machine) -> None:
    with building(limited, "sleep 100") as (unit, _):
        limited.check("pkill", "--uid=61001", "--full", "build -")
        assert eventually(lambda: unit not in units(limited))


def test_a_reload_of_systemd_leaves_builds_alone(limited: Machine) -> None:
    with building(limited, "while [ ! -e go ]; do sleep 0.05; done; : > out") as (unit, process):
        limited.check("systemctl", "daemon-reload")
        limited.check("systemctl", "daemon-reload")
        assert unit in units(limited)
        limited.check("sh", "-c", "cd /var/lib/cupola/bundles/*/scratch/0 && touch go")
        assert result_of(process)[0] == 0
    with building(limited, "sleep 100") as (unit, process):
        limited.check("systemctl", "daemon-reload")
        limited.check("systemctl", "stop", unit)
        assert result_of(process)[0] == 130


def test_four_at_once(limited: Machine) -> None:
    processes = [begin(limited, f"sleep 0.5; echo {i} > out") for i in range(8)]
    results = [result_of(process) for process in processes]
    assert [status for status, _, _ in results] == [0] * 8

"""The daemon as systemd's service, in a machine that boots one: cold starts, and what a unit costs.

A trivial build as a unit is compared with the same one as a child of the daemon, whose service is
then not locked in (docs/hardening.md), in the same machine.
"""

from __future__ import annotations

import re
import statistics
import sys
from pathlib import Path

from harness import Row, timed

_TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(_TESTS / "systemd"), str(_TESTS)]

from installed import install  # noqa: E402
from machine import Machine  # noqa: E402
from members import build  # noqa: E402

ROUNDS = 60
COLD_STARTS = 7

_DOCUMENT = Path(__file__).parents[1] / "docs/hardening.md"
_BUILDS = """
import statistics, sys, time
sys.path[:0] = ["{project}/benchmarks", "{project}/client", "{project}/daemon"]
import cupola.sync
from trivial_build import request
with cupola.sync.connect() as client:
    client.build(request())
    for _ in range({rounds}):
        start = time.perf_counter()
        client.build(request())
        print(time.perf_counter() - start)
"""


def run() -> list[Row]:
    """Measure; the lines of the table."""
    with Machine() as machine:
        install(machine)
        cold = []
        for _ in range(COLD_STARTS):
            machine.check("systemctl", "stop", "cupolad.service")
            with timed() as seconds:
                assert build(machine, ": > out")["status"] == "built"
            cold.append(seconds())
        as_units = _builds(machine)
        found = re.search(r"```ini\n(.*?)```", _DOCUMENT.read_text(), re.DOTALL)
        assert found is not None
        machine.write("/etc/systemd/system/cupolad.service.d/no-units.conf", found[1])
        machine.write("/etc/cupola/cupolad.toml", '[sandbox]\nunits = "never"\n')
        machine.check("systemctl", "daemon-reload")
        machine.check("systemctl", "restart", "cupolad")
        as_children = _builds(machine)
    first = statistics.median(cold)
    return [
        Row(
            "first build of a daemon that is not running, by the command, median",
            f"{first * 1000:.0f} ms",
            "≤ 1 s",
            first <= 1,
        ),
        Row("trivial build as a unit of systemd's, median", f"{as_units:.1f} ms", "", None),
        Row("the same as a child of the daemon", f"{as_children:.1f} ms", "", None),
    ]


def _builds(machine: Machine) -> float:
    """The median of trivial builds, in milliseconds."""
    script = _BUILDS.format(project=_DOCUMENT.parents[1], rounds=ROUNDS)
    lines = machine.check(sys.executable, "-c", script).splitlines()
    return statistics.median(map(float, lines)) * 1000

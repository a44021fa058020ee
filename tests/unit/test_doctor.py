"""How the doctor works: checks that hang or crash, what is shown, and what it costs the others."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import NoReturn

import pytest

from cupola.cli import doctor as command
from cupola.cli import parser
from cupola.doctor import CHECKS, System
from cupola.doctor.examination import examine
from cupola.doctor.finding import Check, Finding, Verdict, ok, problem, together, unknown, warning
from cupola.doctor.system import ProgramError, ProgramStuckError, run_program
from patient import Patient

# --- findings ------------------------------------------------------------------------------------


def test_a_remedy_goes_with_all_but_ok() -> None:
    with pytest.raises(ValueError, match="remedy"):
        Finding(Verdict.OK, "fine", "do nothing")
    with pytest.raises(ValueError, match="remedy"):
        Finding(Verdict.UNKNOWN, "who knows")


def test_complaints_together_are_as_bad_as_the_worst() -> None:
    complaints = [warning("a", "x"), problem("b", "y"), unknown("c", "x")]
    assert together(complaints, ok("fine")) == problem("a; b; c", "x; y")
    assert together([unknown("c", "x"), warning("a", "x")], ok("fine")) == warning("c; a", "x")
    assert together([], ok("fine")) == ok("fine")


# --- examination ---------------------------------------------------------------------------------


def hang(system: System) -> NoReturn:
    """A check that does not end, nor lets itself be asked to."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    subprocess.run(["sleep", "1000"], check=False)
    raise AssertionError("it was to be killed")


def crash(system: System) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it was to crash")


def fault(system: System) -> NoReturn:
    raise IndexError("no such thing")


def denied(system: System) -> NoReturn:
    Path("/proc/1/nonesuch/x").read_text()
    raise AssertionError("there is no such file")


def verbose(system: System) -> Finding:
    return ok("x" * 1_000_000)


def test_a_check_that_hangs_holds_up_nobody() -> None:
    start = time.monotonic()
    checks = [
        Check("hangs", hang, seconds=0.5),
        Check("hangs badly", hang, seconds=0.5, when_stuck=Verdict.PROBLEM),
        Check("works", lambda _: ok("fine"), seconds=30),
    ]
    findings = examine(checks, System())
    assert time.monotonic() - start < 5
    assert list(findings) == ["hangs", "hangs badly", "works"]
    assert findings["hangs"].verdict is Verdict.UNKNOWN
    assert "did not end within 0.5 s" in findings["hangs"].found
    assert findings["hangs badly"].verdict is Verdict.PROBLEM
    assert findings["works"] == ok("fine")


def test_what_a_check_started_is_killed_with_it(tmp_path: Path) -> None:
    noted = tmp_path / "pid"

    def start(system: System) -> NoReturn:
        subprocess.run(["sh", "-c", f"echo $$ > {noted}; exec sleep 1000"], check=False)
        raise AssertionError("it was to be killed")

    examine([Check("starts", start, seconds=2)], System())
    process = Path(f"/proc/{int(noted.read_text())}/stat")
    deadline = time.monotonic() + 10
    # Nobody may have collected it yet.
    while process.exists() and process.read_text().rpartition(") ")[2][0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("work", "found", "remedy"),
    [
        (crash, "ended before it said anything", "report it"),
        (fault, "the check failed: IndexError: no such thing", "report it"),
        (denied, "cannot be looked at: No such file or directory (/proc/1/nonesuch/x)", "doctor"),
    ],
)
def test_a_check_that_fails_is_unknown(work: object, found: str, remedy: str) -> None:
    finding = examine([Check("fails", work)], System(uid=1))["fails"]  # type: ignore[arg-type]
    assert finding.verdict is Verdict.UNKNOWN
    assert found in finding.found
    assert finding.remedy is not None
    assert remedy in finding.remedy


def test_root_is_not_told_to_become_root() -> None:
    finding = examine([Check("fails", denied)], System(uid=0))["fails"]
    assert finding.remedy is not None
    assert "sudo" not in finding.remedy


def test_a_long_answer_comes_whole() -> None:
    assert examine([Check("verbose", verbose)], System())["verbose"] == ok("x" * 1_000_000)


# --- programs ------------------------------------------------------------------------------------


def test_programs() -> None:
    assert run_program(["sh", "-c", "echo out; echo err >&2; exit 3"]).complaint == "err"
    assert run_program(["sh", "-c", "exit 3"]).complaint == "it ended with status 3"
    with pytest.raises(ProgramError, match="cannot run /nonesuch: No such file"):
        run_program(["/nonesuch"])


def test_a_program_that_hangs_is_killed() -> None:
    start = time.monotonic()
    with pytest.raises(ProgramStuckError, match="`sleep 1000` did not end within"):
        run_program(["sleep", "1000"])
    assert time.monotonic() - start < 10


def test_names_of_files_are_those_of_the_machine(tmp_path: Path) -> None:
    system = Patient(tmp_path).system
    assert system.path("/etc/x") == tmp_path / "etc/x"
    assert system.path(Path("s")) == Path("s")
    assert System().path("/etc/x") == Path("/etc/x")
    assert system.find_program("runc") == "/usr/sbin/runc"
    assert system.find_program("/usr/sbin/runc") == "/usr/sbin/runc"
    assert system.find_program("/usr/sbin/nonesuch") is None


def test_this_user_is_found(tmp_path: Path) -> None:
    system = System()
    name = system.accounts.user_name(system.uid)
    assert name is not None
    assert os.getgid() in system.groups
    assert os.getgid() in system.accounts.groups_of(name)
    group = system.accounts.group_name(os.getgid())
    assert group is not None
    assert system.accounts.group_id(group) == os.getgid()
    assert system.accounts.user_name(61987) is None
    assert system.accounts.group_name(61987) is None
    assert system.accounts.group_id("nonesuch") is None


# --- what is shown -------------------------------------------------------------------------------

FINDINGS = {
    "kernel": ok("Linux"),
    "group": problem("not a member\x1b[31m", "`join` [red]it[/red]"),
    "other": problem("b", "y"),
    "units": warning("w", "z"),
    "fuse": unknown("u", "v"),
}


def test_plain_text() -> None:
    shown = io.StringIO()
    with redirect_stdout(shown):
        command._print(FINDINGS)
    assert shown.getvalue().splitlines() == [
        "ok       kernel: Linux",
        "problem  group: not a member\\x1b[31m",
        "         remedy: `join` [red]it[/red]",
        "problem  other: b",
        "         remedy: y",
        "warning  units: w",
        "         remedy: z",
        "unknown  fuse: u",
        "         remedy: v",
        "2 problems, 1 warning, 1 unknown",
    ]
    assert command._summary({"kernel": ok("Linux")}) == "nothing is wrong"


def test_a_terminal_gets_a_table() -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal, redirect_stdout(terminal):
        command._show(FINDINGS)
    shown = ""
    with contextlib.suppress(OSError):  # nobody can write any more
        while piece := os.read(master, 65536):
            shown += piece.decode()
    os.close(master)
    for text in ("kernel", "not a member\\x1b[31m", "remedy: `join` [red]it[/red]", "2 problems"):
        assert text in shown


def test_json() -> None:
    answer = json.loads(json.dumps(command._as_json(FINDINGS, healthy=False)))
    assert answer["healthy"] is False
    assert answer["findings"][0] == {
        "check": "kernel",
        "verdict": "ok",
        "found": "Linux",
        "remedy": None,
    }
    assert [finding["verdict"] for finding in answer["findings"]] == [
        "ok",
        "problem",
        "problem",
        "warning",
        "unknown",
    ]


# --- what it costs -------------------------------------------------------------------------------


def test_names_are_unique() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)


def test_other_commands_do_not_load_it() -> None:
    """Not even to read their command line."""
    script = (
        "import sys; from cupola.cli import parser; parser.parse(['build', 'x']);"
        " print([m for m in sys.modules if m.startswith(('cupola.doctor', 'cupola.cli.doctor'))])"
    )
    assert subprocess.check_output([sys.executable, "-I", "-c", script], text=True) == "[]\n"
    assert parser.parse(["doctor", "--json"]).json is True

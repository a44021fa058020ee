"""What administrators read: structured entries, explanations, and what builds write."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from machine import Machine
from members import REQUEST, build, journal

from cupolad import events
from waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.fuse, pytest.mark.runc]


def entries_of(machine: Machine, build_id: str, event: events.Event) -> list[dict[str, str]]:
    """The entries of one kind about a build, once there are some."""
    matches = (f"CUPOLA_BUILD_ID={build_id}", f"MESSAGE_ID={event.message_id}")
    assert eventually(lambda: journal(machine, *matches)), event.text
    return journal(machine, *matches)


def lines_of(machine: Machine, build_id: str) -> list[str]:
    """What a build wrote, as it stands in the journal."""
    return [entry["MESSAGE"] for entry in entries_of(machine, build_id, events.LINE)]


@pytest.fixture(params=["failures", "none"])
def which(machine: Machine, request: pytest.FixtureRequest) -> Iterator[str]:
    """A setting of `daemon.journal_logs`, in force."""
    config = machine.root / "etc/cupola/cupolad.toml"
    config.parent.mkdir(exist_ok=True)
    config.write_text(f'[daemon]\njournal_logs = "{request.param}"\n')
    machine.run("systemctl", "restart", "cupolad")
    yield request.param
    config.unlink()
    machine.check("systemctl", "restart", "cupolad")


def test_the_whole_story_of_a_build(machine: Machine) -> None:
    build_id = build(machine, "echo on its way; : > out")["build_id"]
    assert entries_of(machine, build_id, events.BUILT)
    assert [entry["MESSAGE"] for entry in journal(machine, f"CUPOLA_BUILD_ID={build_id}")] == [
        f"build {build_id} of uid 61001: accepted: build/out",
        f"build {build_id} of uid 61001: started",
        "on its way",
        f"build {build_id} of uid 61001: built in "
        + journal(machine, f"CUPOLA_BUILD_ID={build_id}")[-1]["MESSAGE"].rpartition(" in ")[2],
    ]
    (built,) = entries_of(machine, build_id, events.BUILT)
    assert built["CUPOLA_UID"] == "61001"
    assert built["CUPOLA_OUTPUT"] == "build/out"
    assert len(built["CUPOLA_REQUEST"]) == 64
    assert built["PRIORITY"] == "6"
    assert built["SYSLOG_IDENTIFIER"] == "cupolad"
    assert built["_SYSTEMD_UNIT"] == "cupolad.service"


def test_equal_requests_are_known_by_their_digest(machine: Machine) -> None:
    ids = [build(machine, script)["build_id"] for script in (": > out", ": > out", "echo > out")]
    first, second, third = (
        entries_of(machine, build_id, events.ACCEPTED)[0]["CUPOLA_REQUEST"] for build_id in ids
    )
    assert first == second != third


def test_a_failure_and_what_to_do_about_it(machine: Machine) -> None:
    result = build(machine, "echo broken >&2; exit 3")
    (failed,) = entries_of(machine, result["build_id"], events.FAILED)
    assert failed["CUPOLA_CODE"] == "build_failed"
    assert failed["PRIORITY"] == "4"
    explained = machine.check(
        "journalctl", "--catalog", f"MESSAGE_ID={events.FAILED.message_id}", "--lines=1"
    )
    assert "The build of uid 61001 failed by itself or hit a limit (build_failed)" in explained
    assert f"journalctl CUPOLA_BUILD_ID={result['build_id']}" in explained


def test_a_refused_request(machine: Machine) -> None:
    done = machine.run(
        "cupola", "build", "-", user=61001, stdin=REQUEST.format(script=":").replace("/out", "/..")
    )
    assert done.returncode == 2
    (entry,) = journal(machine, f"MESSAGE_ID={events.REQUEST_REFUSED.message_id}", "--lines=1")
    assert (entry["CUPOLA_UID"], entry["CUPOLA_CODE"]) == ("61001", "invalid_request")


def test_a_build_s_unit_shows_what_the_daemon_says_of_it(machine: Machine) -> None:
    build_id = build(machine, "echo seen; : > out")["build_id"]
    assert entries_of(machine, build_id, events.BUILT)
    shown = machine.check("journalctl", "-u", f"cupola-build-{build_id}", "--output=cat")
    assert f"build {build_id} of uid 61001: built" in shown
    assert "seen" in shown
    assert "Started cupola-build-" in shown


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("printf 'a\\033[2Jb\\tc\\n'", ["a\\x1b[2Jb    c"]),
        ("printf 'x\\nPRIORITY=0\\nCUPOLA_UID=0\\n'", ["x", "PRIORITY=0", "CUPOLA_UID=0"]),
        ("printf 'no end'", ["no end"]),
        ("printf 'nul\\000 \\377\\n'", ["nul\\x00 \\xff"]),
        ("head -c 10000 /dev/zero | tr '\\0' x", ["x" * 4096, "x" * 4096, "x" * 1808]),
    ],
)
def test_what_builds_write_is_only_text(machine: Machine, written: str, read: list[str]) -> None:
    build_id = build(machine, f"{written}; : > out")["build_id"]
    assert entries_of(machine, build_id, events.BUILT)
    assert lines_of(machine, build_id) == read
    for entry in entries_of(machine, build_id, events.LINE):
        assert (entry["PRIORITY"], entry["CUPOLA_UID"]) == ("6", "61001")


def test_a_flood_is_held_back_and_counted(machine: Machine) -> None:
    build_id = build(machine, "yes | head -n 200000; : > out")["build_id"]
    assert entries_of(machine, build_id, events.BUILT)

    def counted() -> tuple[int, int]:
        left_out = entries_of(machine, build_id, events.LINES_LEFT_OUT)
        return len(lines_of(machine, build_id)), sum(int(e["CUPOLA_COUNT"]) for e in left_out)

    assert eventually(lambda: sum(counted()) == 200_000), counted()
    assert 1000 <= counted()[0] < 3000
    after = build(machine, "echo still here; : > out")["build_id"]
    assert lines_of(machine, after) == ["still here"]


def test_which_logs_are_kept(machine: Machine, which: str) -> None:
    good = build(machine, "echo good; : > out")["build_id"]
    bad = build(machine, "echo bad; exit 1")["build_id"]
    assert entries_of(machine, good, events.BUILT)
    assert entries_of(machine, bad, events.FAILED)
    line = f"MESSAGE_ID={events.LINE.message_id}"
    kept = [
        entry["MESSAGE"]
        for build_id in (good, bad)
        for entry in journal(machine, line, f"CUPOLA_BUILD_ID={build_id}")
    ]
    assert kept == (["bad"] if which == "failures" else [])


def test_a_journal_that_hangs_holds_up_nothing(machine: Machine) -> None:
    pid = machine.check("systemctl", "show", "systemd-journald", "--property=MainPID", "--value")
    machine.check("kill", "-STOP", pid.strip())
    try:
        for _ in range(2):
            assert build(machine, "yes | head -n 3000; : > out")["status"] == "built"
    finally:
        machine.check("kill", "-CONT", pid.strip())
    assert eventually(lambda: build(machine, ": > out")["status"] == "built")
    lost = f"MESSAGE_ID={events.MESSAGES_LOST.message_id}"
    assert eventually(lambda: journal(machine, lost))

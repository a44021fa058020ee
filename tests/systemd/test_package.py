"""The Debian package's whole life: installed, used, upgraded under load, removed and purged."""

from __future__ import annotations

import filecmp
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from installed import MEMBER, STRANGER, UNITS
from machine import Machine
from made import make_package, make_upgrade

pytestmark = [pytest.mark.root, pytest.mark.fuse, pytest.mark.runc]

REQUEST = """
command_args = ["/bin/sh", "-euc", '''{script}''']
outputs = ["build/out"]
constraints.provide_bin_sh = true
"""
UPGRADE = "999.1"
DRAIN_SECONDS = 6
STATE = ("/var/lib/cupola", "/var/log/cupola", "/etc/cupola")

# Connects as often as it can until a file appears; prints how many tries there were, and what
# went wrong.
KNOCK = """
import pathlib, socket, time
tries, wrong = 0, set()
while not pathlib.Path("/tmp/enough").exists():
    with socket.socket(socket.AF_UNIX) as knock:
        knock.settimeout(60)
        tries += 1
        try:
            knock.connect("/run/cupola/cupola.sock")
        except OSError as error:
            wrong.add(str(error))
    time.sleep(0.01)
print(tries, *wrong, sep="\\n")
"""


@dataclass(frozen=True)
class Installed:
    """A machine with the package and its users."""

    machine: Machine
    said: str
    """What dpkg said."""


@dataclass(frozen=True)
class Upgraded:
    """What came of an upgrade with one build running and another waiting."""

    machine: Machine
    said: str
    running: dict[str, Any]
    queued: dict[str, Any]
    knocks: list[str]
    socket_since: tuple[str, str]
    """When the socket began to listen, asked before and after."""


def dpkg(machine: Machine, *arguments: str) -> str:
    """What dpkg says; a host that leaves out man pages to save room does not matter."""
    include = "--path-include=/usr/share/*"
    return machine.check("dpkg", include, "--force-unsafe-io", *arguments)


def put(machine: Machine, package: Path) -> str:
    """Copy a package into the machine; its path there."""
    (machine.root / "var/tmp" / package.name).write_bytes(package.read_bytes())
    return f"/var/tmp/{package.name}"


def show(machine: Machine, unit: str, name: str) -> str:
    """A property of a unit."""
    return machine.check("systemctl", "show", unit, "--value", f"--property={name}").strip()


def submit(machine: Machine, script: str) -> subprocess.Popen[str]:
    """Start a build by a member."""
    process = machine.popen(
        ["cupola", "build", "-", "--json"], user=MEMBER, stdin=-1, stdout=-1, stderr=-1
    )
    assert process.stdin is not None
    process.stdin.write(REQUEST.format(script=script))
    process.stdin.close()
    process.stdin = None
    return process


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What came of a build."""
    out, _ = process.communicate(timeout=60)
    answer: dict[str, Any] = json.loads(out)
    return answer


def wait_for_builds(machine: Machine, running: int, queued: int) -> None:
    """Return when so many builds run and wait."""
    for _ in range(200):
        report = json.loads(machine.check("cupola", "status", "--json"))
        if (report["running"], report["queued"]) == (running, queued):
            return
        time.sleep(0.05)
    pytest.fail(f"{report['running']} builds run and {report['queued']} wait")


@pytest.fixture(scope="module")
def bare() -> Iterator[Machine]:
    """A machine without anything of cupola, that lets packages start services."""
    with Machine() as machine:
        (machine.root / "usr/sbin/policy-rc.d").unlink(missing_ok=True)
        yield machine


@pytest.fixture(scope="module")
def installed(bare: Machine, package: Path) -> Installed:
    said = dpkg(bare, "--install", put(bare, package))
    bare.check("useradd", "--no-create-home", f"--uid={MEMBER}", "--groups=cupola", "member")
    bare.check("useradd", "--no-create-home", f"--uid={STRANGER}", "stranger")
    return Installed(bare, said)


@pytest.fixture(scope="module")
def upgraded(
    installed: Installed, package: Path, tmp_path_factory: pytest.TempPathFactory
) -> Upgraded:
    machine = installed.machine
    upgrade = put(machine, make_upgrade(package, tmp_path_factory.mktemp("upgrade"), UPGRADE))
    one = machine.root / "etc/cupola/cupolad.toml.d/one.toml"
    one.write_text("[scheduler]\nmax_builds = 1\n")
    machine.check("systemctl", "reload-or-restart", "cupolad")
    since = show(machine, "cupolad.socket", "ActiveEnterTimestampMonotonic")
    running = submit(machine, f"sleep {DRAIN_SECONDS}; : > out")
    wait_for_builds(machine, 1, 0)
    queued = submit(machine, "echo queued > out")
    wait_for_builds(machine, 1, 1)
    knocking = machine.popen(["python3", "-c", KNOCK], user=MEMBER, stdout=-1)
    said = dpkg(machine, "--install", upgrade)
    (machine.root / "tmp/enough").touch()
    knocks, _ = knocking.communicate(timeout=90)
    return Upgraded(
        machine,
        said,
        result(running),
        result(queued),
        knocks.splitlines(),
        (since, show(machine, "cupolad.socket", "ActiveEnterTimestampMonotonic")),
    )


@pytest.fixture(scope="module")
def removed(upgraded: Upgraded) -> Machine:
    dpkg(upgraded.machine, "--remove", "cupola")
    return upgraded.machine


@pytest.fixture(scope="module")
def purged(removed: Machine) -> Machine:
    dpkg(removed, "--purge", "cupola")
    return removed


# --- the file ------------------------------------------------------------------------------------


def test_lintian_finds_no_error(package: Path) -> None:
    done = subprocess.run(
        ["lintian", "--allow-root", "--fail-on=error", "--display-level=+=info", package],
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "\nE: " not in f"\n{said}"
    # An override that does not fit would be a lie.
    assert "override" not in said


def test_another_make_makes_the_same(package: Path, tmp_path: Path) -> None:
    again = make_package(tmp_path, umask=0o077, TZ="Pacific/Auckland", LC_ALL="C")
    assert again.name == package.name
    assert filecmp.cmp(package, again, shallow=False)


def test_what_the_package_has_and_has_not(package: Path) -> None:
    tree = subprocess.run(
        ["dpkg-deb", "--contents", package], capture_output=True, text=True, check=True
    )
    names = {line.split()[5].removeprefix(".") for line in tree.stdout.splitlines()}
    assert {
        "/usr/bin/cupola",
        "/usr/bin/cupolad",
        "/usr/lib/sysusers.d/cupola.conf",
        "/usr/lib/tmpfiles.d/cupola.conf",
        "/usr/share/bash-completion/completions/cupola",
        "/usr/share/zsh/vendor-completions/_cupola",
        "/usr/share/fish/vendor_completions.d/cupola.fish",
        "/usr/share/man/man1/cupola.1.gz",
        "/usr/share/man/man8/cupolad.8.gz",
        "/etc/cupola/cupolad.toml",
    } <= names
    units = {f"/lib/systemd/system/{unit.name}" for unit in UNITS.glob("cupola*.*")}
    catalogs = {f"/usr/lib/systemd/catalog/{file.name}" for file in UNITS.glob("*.catalog")}
    assert {name for name in names if "/systemd/" in name and name[-1] != "/"} == {
        *(unit for unit in units if not unit.endswith(".catalog")),
        *catalogs,
    }
    parts = {part for name in names for part in name.split("/")}
    assert not parts & {"__pycache__", "pip", "setuptools", "pytest", "tests", "_tests"}


# --- in a machine, in the order of its life ------------------------------------------------------


def test_installed_it_listens_and_has_not_started_yet(installed: Installed) -> None:
    machine = installed.machine
    assert show(machine, "cupolad.socket", "ActiveState") == "active"
    assert show(machine, "cupolad.service", "ActiveState") == "inactive"
    assert machine.check("systemctl", "is-enabled", "cupolad.socket").strip() == "enabled"
    assert machine.run("systemctl", "--failed", "--quiet").stdout == ""
    assert "warning" not in installed.said.lower()


def test_a_member_builds_and_a_stranger_is_refused(installed: Installed) -> None:
    machine = installed.machine
    assert result(submit(machine, "echo installed > out"))["status"] == "built"
    assert machine.run("cupola", "status", user=STRANGER).returncode == 69


def test_the_system_keeps_to_the_files_of_the_package(installed: Installed) -> None:
    assert installed.machine.check("dpkg", "--verify", "cupola") == ""


def test_pages_are_found(installed: Installed) -> None:
    for page in ("cupola.1", "cupolad.8", "cupolad.toml.5", "cupola-protocol.7"):
        name, _, section = page.rpartition(".")
        found = installed.machine.check("man", "--where", section, name, user=MEMBER)
        assert found.strip() == f"/usr/share/man/man{section}/{page}.gz"
    words = installed.machine.check("man", "--pager=cat", "cupola", user=MEMBER)
    assert "sends requests to cupolad(8)" in words


def test_the_configuration_is_read_as_it_was_installed(installed: Installed) -> None:
    assert installed.machine.run("cupolad", "--check-config").returncode == 0


def test_an_upgrade_lets_running_builds_end(upgraded: Upgraded) -> None:
    assert upgraded.running.get("status") == "built", upgraded.running
    assert upgraded.queued.get("error", {}).get("code") != "no_daemon"


def test_an_upgrade_lets_waiting_builds_run_later(upgraded: Upgraded) -> None:
    assert upgraded.queued.get("status") == "built", upgraded.queued


def test_an_upgrade_refuses_no_connection(upgraded: Upgraded) -> None:
    tries, *wrong = upgraded.knocks
    assert wrong == []
    assert int(tries) > 100
    before, after = upgraded.socket_since
    assert before == after != "0"


def test_the_new_version_serves_with_the_configuration_of_the_old(upgraded: Upgraded) -> None:
    report = json.loads(upgraded.machine.check("cupola", "status", "--json"))
    assert report["server"] == f"cupolad {UPGRADE}"
    assert report["max_builds"] == 1
    assert result(submit(upgraded.machine, "echo upgraded > out"))["status"] == "built"


def test_removed_nothing_listens_and_only_state_is_left(removed: Machine) -> None:
    assert "cupola" not in removed.check("cat", "/proc/net/unix")
    assert removed.run("systemctl", "cat", "cupolad.socket").returncode != 0
    assert removed.check("systemctl", "list-units", "--quiet", "cupola*") == ""
    assert removed.run("systemctl", "list-unit-files", "--quiet", "cupola*").stdout == ""
    for gone in ("/usr/lib/cupola", "/usr/bin/cupola", "/run/cupola"):
        assert not (removed.root / gone[1:]).exists(), gone
    for kept in STATE:
        assert (removed.root / kept[1:]).is_dir(), kept
    assert (removed.root / "etc/cupola/cupolad.toml.d/one.toml").exists()
    assert "cupola" in removed.check("getent", "group", "cupola")


def test_purged_nothing_is_left(purged: Machine) -> None:
    for gone in STATE:
        assert not (purged.root / gone[1:]).exists(), gone
    assert purged.run("getent", "group", "cupola").returncode != 0
    places = ("/etc", "/usr", "/var/lib", "/var/log", "/run/systemd", "/opt")
    found = purged.check("find", *places, "-xdev", "-name", "*cupola*").splitlines()
    assert found == []

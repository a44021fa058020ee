"""The daemon is locked in, its builds are not: docs/hardening.md, line by line."""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from installed import UNITS
from machine import Machine
from members import build, show, units

pytestmark = [pytest.mark.root, pytest.mark.fuse, pytest.mark.runc]

DOCUMENT = Path(__file__).parents[2] / "docs/hardening.md"
MOST_EXPOSURE = 2.3


@pytest.fixture(scope="module")
def inputs(machine: Machine) -> str:
    """Lines of a request that give a build the programs that try what it may do."""
    folder = machine.root / "tmp/inputs"
    folder.mkdir()
    source = Path(__file__).with_name("freedom.c")
    command = ["gcc", "-static", "-O1", "-Wall", "-o", str(folder / "freedom"), str(source)]
    subprocess.run(command, check=True)
    (folder / "thirtytwo").write_bytes(_thirty_two_bit_program())
    (folder / "thirtytwo").chmod(0o755)
    return 'inputs.programs = { path = "/tmp/inputs" }\n'


def _thirty_two_bit_program() -> bytes:
    """An i386 ELF program that writes `32` and ends well, by `int 0x80` (elf(5))."""
    base, header = 0x08048000, 52 + 32
    text = b"32\n"
    write = struct.pack("<BIBIBIBI", 0xB8, 4, 0xBB, 1, 0xB9, base + header, 0xBA, len(text))
    leave = struct.pack("<BIBI", 0xB8, 1, 0xBB, 0)
    code = write + b"\xcd\x80" + leave + b"\xcd\x80"
    size = header + len(text) + len(code)
    entry = base + header + len(text)
    ident = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    elf = ident + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, entry, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    segment = struct.pack("<IIIIIIII", 1, 0, base, base, size, size, 5, 4096)
    return elf + segment + text + code


@pytest.mark.parametrize("what", ["jit", "loopback", "debugger", "rest"])
def test_builds_may_do_what_the_daemon_may_not(machine: Machine, inputs: str, what: str) -> None:
    result = build(machine, f"/inputs/programs/freedom {what}; : > out", more=inputs)
    assert result.get("status") == "built", result


def test_builds_may_run_32_bit_programs(machine: Machine, inputs: str) -> None:
    result = build(machine, 'test "$(/inputs/programs/thirtytwo)" = 32; : > out', more=inputs)
    assert result.get("status") == "built", result


def test_inputs_among_scratch_and_references(machine: Machine, inputs: str) -> None:
    more = 'inputs_dir = "build/in"\nrefscan_needles = ["needle"]\n' + inputs
    result = build(machine, "in/programs/freedom jit; echo a needle > out", more=more)
    assert result.get("status") == "built", result
    assert result["outputs"][0]["needles"] == [0]


def test_the_daemon_itself_is_locked_in(machine: Machine) -> None:
    build(machine, ": > out")
    pid = show(machine, "cupolad", "MainPID")["MainPID"]
    status = machine.check("cat", f"/proc/{pid}/status")
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
    bounding = re.search(r"^CapBnd:\s+(\w+)$", status, re.MULTILINE)
    assert bounding is not None
    assert int(bounding[1], 16).bit_count() == 6


def test_exposure() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", UNITS / "cupolad.service"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"Overall exposure level for cupolad.service: ([\d.]+)", done.stdout)
    assert found is not None
    assert float(found[1]) <= MOST_EXPOSURE
    assert f"exposure is {found[1]}" in DOCUMENT.read_text()


def test_every_directive_has_its_reason() -> None:
    unit = (UNITS / "cupolad.service").read_text().partition("# docs/hardening.md")[2]
    set_ = set(re.findall(r"^(\w+)=", unit, re.MULTILINE)) - {"Also", "WantedBy"}
    explained = set(re.findall(r"^\| `(\w+)", DOCUMENT.read_text(), re.MULTILINE))
    assert set_ <= explained, set_ - explained


@pytest.fixture
def without_units(machine: Machine) -> Iterator[Machine]:
    """The machine, set up as docs/hardening.md says for a daemon that runs runc itself."""
    found = re.search(r"```ini\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found is not None
    drop_in = machine.root / "etc/systemd/system/cupolad.service.d/without-units.conf"
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text(found[1])
    config = machine.root / "etc/cupola/cupolad.toml"
    config.parent.mkdir(exist_ok=True)
    config.write_text('[sandbox]\nunits = "never"\n[limits]\nmemory = 100000000\n')
    machine.check("systemctl", "daemon-reload")
    machine.check("systemctl", "restart", "cupolad")
    yield machine
    drop_in.unlink()
    config.unlink()
    machine.check("systemctl", "daemon-reload")
    machine.check("systemctl", "restart", "cupolad")


def test_without_units_runc_s_own_limits_hold(without_units: Machine, inputs: str) -> None:
    seen = build(without_units, "/inputs/programs/freedom jit; : > out", more=inputs)
    assert seen.get("status") == "built", seen
    assert units(without_units) == set()
    bomb = build(without_units, "head -c 200000000 /dev/zero > /tmp/x; : > out")
    assert bomb["error"]["code"] == "out_of_memory"


def test_no_message_bus_is_needed(machine: Machine) -> None:
    machine.check("systemctl", "stop", "dbus.socket", "dbus.service")
    try:
        machine.check("systemctl", "restart", "cupolad")
        assert build(machine, ": > out")["status"] == "built"
    finally:
        machine.check("systemctl", "start", "dbus.socket")

"""Each check of the doctor, on machines that are ill in each way it knows, and on a healthy one."""

from __future__ import annotations

import ast
import errno
import gzip
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cupola.doctor import CHECKS, Check, Verdict, namespaces, runtime, settings, state
from cupola.doctor import kernel as kernel_check
from cupola.doctor.examination import make
from cupola.doctor.system import PROGRAM_PATH, Output, ProgramError, ProgramStuckError
from cupolad import config, seccomp, spec
from cupolad import runc as daemon_runc
from patient import GROUP_ID, HYBRID, RUNC, USER, Patient, program

OK, UNKNOWN, WARNING, PROBLEM = Verdict.OK, Verdict.UNKNOWN, Verdict.WARNING, Verdict.PROBLEM
DEBIAN_12 = "1.1.5+ds1-1+deb12u1"


@dataclass(frozen=True)
class Case:
    """A machine, and what the check has to say of it."""

    check: str
    verdict: Verdict
    found: str
    remedy: str | None
    change: Callable[[Patient], Any] = lambda _: None


def be(**fields: Any) -> Callable[[Patient], None]:
    """Replace fields of the system."""
    return lambda patient: patient.fields.update(fields)


def room(**values: int) -> Callable[[Patient], None]:
    """Replace what statvfs says."""
    return lambda patient: patient.space.update(values)


def both(*changes: Callable[[Patient], Any]) -> Callable[[Patient], None]:
    """Several changes, one after the other."""

    def change(patient: Patient) -> None:
        for one in changes:
            one(patient)

    return change


def write(name: str, text: str | bytes) -> Callable[[Patient], Any]:
    return lambda patient: patient.write(name, text)


def remove(name: str) -> Callable[[Patient], None]:
    return lambda patient: patient.remove(name)


def says(command: str, answer: Output | ProgramError) -> Callable[[Patient], None]:
    return lambda patient: patient.says.update({command: answer})


def unit(kind: str, **properties: str) -> Callable[[Patient], None]:
    """Change the properties of `cupolad.<kind>`."""
    return lambda patient: patient.unit(f"cupolad.{kind}", **properties)


def shell(contents: bytes) -> Callable[[Patient], Any]:
    return lambda patient: patient.write("bin/busybox", contents).chmod(0o755)


def refuses(number: int) -> Callable[[Patient], None]:
    """Let the device be opened with an error."""

    def open_device(device: Path) -> None:
        raise OSError(number, os.strerror(number), str(device))

    return be(open_device=open_device)


def old_runc(patient: Patient) -> None:
    """Debian 12's runc, without its list of changes."""
    patient.says[f"{RUNC} --version"] = Output(0, "runc version 1.1.5+ds1\ncommit: x\n")
    patient.says["dpkg-query --show"] = Output(0, DEBIAN_12)


def changes_of_runc(text: str) -> Callable[[Patient], Any]:
    return write("usr/share/doc/runc/changelog.Debian.gz", gzip.compress(text.encode()))


def own(name: str) -> Callable[[Patient], None]:
    """Call the socket's group `name`."""
    return lambda patient: patient.book.groups.update({GROUP_ID: name})


def no_group(patient: Patient) -> None:
    patient.book.groups.clear()


def no_systemd(patient: Patient) -> None:
    patient.remove("run/systemd/system")


def stranger(patient: Patient) -> None:
    patient.fields.update(groups=frozenset(), may_write=lambda _: False)
    patient.book.members["alice"] = set()


def left(patient: Patient) -> None:
    patient.book.members["alice"] = set()


def loose_parent(patient: Patient) -> None:
    (patient.root / "var/lib").chmod(0o777)


def own_device(target: str) -> Callable[[Patient], None]:
    def change(patient: Patient) -> None:
        patient.remove("dev/fuse")
        (patient.root / "dev/fuse").symlink_to(target)

    return change


SOCKET = "run/cupola/cupola.sock"
MAX = "proc/sys/user/max_{}_namespaces"
SHOW = "systemctl show"
FAILED = {"ActiveState": "failed", "SubState": "failed", "Result": "exit-code"}
AUTO_RESTART = {"ActiveState": "activating", "SubState": "auto-restart", "Result": "exit-code"}
BUS = Output(1, "", "Failed to connect to bus: No such file or directory\n")

# fmt: off
CASES = [
    Case("kernel", OK, "Linux 6.1.0-18-amd64 on x86_64", None),
    Case("kernel", WARNING, "cgroup.kill", "5.14", be(release="5.13.19")),
    Case("kernel", PROBLEM, "Linux 5.10.0-28-amd64 on x86_64 is too old", "upgrade", be(release="5.10.0-28-amd64")),
    Case("kernel", PROBLEM, "no system call filter", "x86_64, aarch64", be(machine="riscv64")),
    Case("kernel", UNKNOWN, "'tainted'", "uname -a", be(release="tainted")),

    Case("namespaces", OK, "15,000 user namespaces", None),
    Case("namespaces", OK, "but not to ordinary users", None, write("proc/sys/kernel/unprivileged_userns_clone", "0\n")),
    Case("namespaces", OK, "15,000 user namespaces", None, write("proc/sys/kernel/unprivileged_userns_clone", "1\n")),
    Case("namespaces", OK, "but not to ordinary", None, write("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n")),
    Case("namespaces", PROBLEM, "user.max_user_namespaces is 0", "sudo sysctl -w user.max_user_namespaces=", write(MAX.format("user"), "0\n")),
    Case("namespaces", PROBLEM, "user.max_net_namespaces is 0", "sudo sysctl -w user.max_net_namespaces=", write(MAX.format("net"), "0\n")),
    Case("namespaces", WARNING, "user.max_pid_namespaces is 7", "/etc/sysctl.d", write(MAX.format("pid"), "7\n")),
    Case("namespaces", WARNING, "a container without the user ids 872415232", "outside", write("proc/self/uid_map", "0 100000 65536\n")),
    Case("namespaces", PROBLEM, "CONFIG_USER_NS=n", "CONFIG_USER_NS=y", remove("proc/self/ns/user")),
    Case("namespaces", UNKNOWN, "cannot be looked at: No such file", "sudo cupola doctor", remove(MAX.format("user"))),

    Case("cgroups", OK, "cgroup v2: memory at /sys/fs/cgroup, pids at", None),
    Case("cgroups", OK, "cgroup v1: memory at /cg/memory", None, lambda p: p.cgroups(*HYBRID)),
    Case("cgroups", OK, "cgroup v1 (hybrid): memory at /cg/memory", None, lambda p: p.cgroups(*HYBRID, unified="/u", controllers="")),
    Case("cgroups", PROBLEM, "cgroup v2 lacks the controller pids", "/proc/cgroups", lambda p: p.cgroups(unified="/u", controllers="cpu memory")),
    Case("cgroups", PROBLEM, "cgroup v1 lacks the controller cpuacct", "kernel", lambda p: p.cgroups("memory", "pids", "cpu")),
    Case("cgroups", PROBLEM, "the controller pids is one of cgroup v1", "systemd.unified_cgroup_hierarchy=1", lambda p: p.cgroups("pids", unified="/u", controllers="cpu memory")),
    Case("cgroups", PROBLEM, "memory was switched off", "cgroup_enable=memory", both(write("proc/cgroups", "memory\t0\t1\t0\n"), lambda p: p.cgroups(unified="/u", controllers="cpu pids"))),
    Case("cgroups", PROBLEM, "/sys/fs/cgroup is mounted read-only", "remount,rw /sys/fs/cgroup", lambda p: p.cgroups(unified="/sys/fs/cgroup", at="ro,nosuid")),
    Case("cgroups", PROBLEM, "no cgroup hierarchy is mounted", "mount -t cgroup2", lambda p: p.cgroups()),
    Case("cgroups", UNKNOWN, "No such file", "sudo cupola doctor", remove("proc/self/mountinfo")),

    Case("fuse", OK, "/dev/fuse can be opened", None),
    Case("fuse", OK, "open to root alone, which is enough", None, refuses(errno.EACCES)),
    Case("fuse", UNKNOWN, "has not loaded FUSE yet", "sudo cupola doctor", both(refuses(errno.EACCES), write("proc/filesystems", "ext4\n"))),
    Case("fuse", UNKNOWN, "Too many open files", "sudo cupola doctor", refuses(errno.EMFILE)),
    Case("fuse", PROBLEM, "root may not open", "container", both(refuses(errno.EPERM), be(uid=os.geteuid()))),
    Case("fuse", PROBLEM, "the kernel has no FUSE", "sudo modprobe fuse", refuses(errno.ENODEV)),
    Case("fuse", PROBLEM, "there is no /dev/fuse", "mknod -m 666 /dev/fuse c 10 229", remove("dev/fuse")),
    Case("fuse", PROBLEM, "the module fuse is not loaded", "sudo modprobe fuse", both(remove("dev/fuse"), write("proc/filesystems", ""))),
    Case("fuse", PROBLEM, "the module fuse is not loaded", "sudo modprobe fuse", both(remove("dev/fuse"), write("proc/filesystems", ""), lambda p: p.built_with("CONFIG_FUSE_FS=m\n"))),
    Case("fuse", PROBLEM, "built without FUSE", "CONFIG_FUSE_FS", both(remove("dev/fuse"), write("proc/filesystems", ""), lambda p: p.built_with("# CONFIG_FUSE_FS is not set\n"))),
    Case("fuse", PROBLEM, "built without FUSE", "CONFIG_FUSE_FS", both(remove("dev/fuse"), write("proc/filesystems", ""), write("boot/config-6.1.0-18-amd64", "# CONFIG_FUSE_FS is not set\n"))),
    Case("fuse", PROBLEM, "is not FUSE's device", "mknod", own_device("/dev/null")),
    Case("fuse", PROBLEM, "is not FUSE's device", "mknod", own_device("/etc/passwd")),

    Case("runc", OK, "/usr/sbin/runc is runc 1.1.12", None),
    Case("runc", OK, "runc 1.3.0-rc.2", None, says(f"{RUNC} --version", Output(0, "runc version 1.3.0-rc.2\n"))),
    Case("runc", OK, f"its package {DEBIAN_12} mends CVE-2024-21626", None, both(old_runc, changes_of_runc("* CVE-2024-21626: fixed"))),
    Case("runc", OK, f"its package {DEBIAN_12} mends CVE-2024-21626", None, both(old_runc, says("dpkg --compare-versions", Output(0)))),
    Case("runc", WARNING, "(CVE-2024-21626), and the package 1.1.5+ds1-1", "1.1.12", both(old_runc, changes_of_runc("* nothing"), says("dpkg-query --show", Output(0, "1.1.5+ds1-1")))),
    Case("runc", WARNING, "(CVE-2024-21626), and the package 1.1.7-2", "1.1.12", both(old_runc, says("dpkg-query --show", Output(0, "1.1.7-2")), says("dpkg --compare-versions", Output(0)))),
    Case("runc", WARNING, "(CVE-2024-21626)", "1.1.12", both(old_runc, says("dpkg-query --search", Output(1)))),
    Case("runc", WARNING, "(CVE-2024-21626)", "1.1.12", both(old_runc, says("dpkg-query --search", ProgramError("no dpkg")))),
    Case("runc", WARNING, "does not call itself runc", "[sandbox]", says(f"{RUNC} --version", Output(0, "crun version 1.8\n"))),
    Case("runc", PROBLEM, "runc 1.0.3, which is too old", "apt-get install runc", says(f"{RUNC} --version", Output(0, "runc version 1.0.3\n"))),
    Case("runc", PROBLEM, "does not run: no libseccomp", "apt-get install runc", says(f"{RUNC} --version", Output(127, "", "ld.so\nno libseccomp\n"))),
    Case("runc", PROBLEM, "is not installed", "sudo apt-get install runc", remove(RUNC)),
    Case("runc", PROBLEM, "is not installed", "package manager", both(remove(RUNC), remove("usr/bin/apt-get"))),
    Case("runc", PROBLEM, "runc is /usr/local/bin/runc, where", 'runtime = "/usr/local/bin/runc"', both(remove(RUNC), write("usr/local/bin/runc", ""))),
    Case("runc", PROBLEM, "youki, which runs builds, is not", "install", write("etc/cupola/cupolad.toml", '[sandbox]\nruntime = "youki"\n')),
    Case("runc", UNKNOWN, "did not end", "sudo cupola doctor", says(f"{RUNC} --version", ProgramStuckError("it did not end"))),

    Case("shell", OK, "/bin/busybox is a static program", None),
    Case("shell", PROBLEM, "needs libraries", "apt-get install busybox-static", shell(program(3))),
    Case("shell", PROBLEM, "needs libraries or another program", "busybox-static", shell(b"#!/bin/sh\n")),
    Case("shell", PROBLEM, "needs libraries", "busybox-static", shell(program()[:70])),
    Case("shell", PROBLEM, "cannot be executed", "chmod 755 /bin/busybox", lambda p: p.write("bin/busybox", program()).chmod(0o644)),
    Case("shell", PROBLEM, "there is no /bin/busybox", "sudo apt-get install busybox-static", remove("bin/busybox")),
    Case("shell", PROBLEM, "there is no /bin/own", "busybox", write("etc/cupola/cupolad.toml.d/1.toml", '[sandbox]\nshell = "/bin/own"\n')),
    Case("shell", OK, "/bin/busybox", None, write("etc/cupola/cupolad.toml", "sandbox = 1\nno toml")),

    Case("state", OK, "/var/lib/cupola has room for 381.5 GiB and 100,000,000 files", None),
    Case("state", OK, "/var/lib has room", None, remove("var/lib/cupola")),
    Case("state", OK, "room for 381.5 GiB", None, room(f_files=0, f_favail=0)),
    Case("state", WARNING, "only 1.0 GiB left", "sudo du -xh", room(f_bavail=262144)),
    Case("state", PROBLEM, "only 4.0 MiB left", "sudo du -xh", room(f_bavail=1024)),
    Case("state", WARNING, "only 40,000 files", "--inodes", room(f_favail=40_000)),
    Case("state", PROBLEM, "only 40 files", "--inodes", room(f_favail=40)),
    Case("state", PROBLEM, "is read-only", "remount,rw", room(f_flag=os.ST_RDONLY)),
    Case("state", PROBLEM, "mounted noexec", "remount,exec", room(f_flag=os.ST_NOEXEC)),
    Case("state", PROBLEM, "only 1.0 GiB left; the file system of /var/lib/cupola has room for only 4 files", "; ", room(f_bavail=262144, f_favail=4)),
    Case("state", PROBLEM, "others than root may write /var/lib,", "chmod go-w /var/lib", loose_parent),
    Case("state", PROBLEM, "/var/lib/cupola belongs to", "chown root: /var/lib/cupola", be(root_uid=USER)),

    Case("systemd", OK, "systemd 252 is running", None),
    Case("systemd", WARNING, "systemd does not run here", "cupolad", no_systemd),
    Case("systemd", PROBLEM, "systemd does not answer: it did not end", "status dbus", says(SHOW, ProgramStuckError("it did not end"))),
    Case("systemd", UNKNOWN, "Failed to connect to bus", "sudo cupola doctor", says(SHOW, BUS)),
    Case("systemd", UNKNOWN, "cannot run systemctl", "sudo cupola doctor", says(SHOW, ProgramError("cannot run systemctl"))),

    Case("cupolad.socket", OK, "is active (listening)", None),
    Case("cupolad.socket", PROBLEM, "is not installed", "install the daemon", unit("socket", LoadState="not-found", ActiveState="inactive")),
    Case("cupolad.socket", PROBLEM, "is masked", "sudo systemctl unmask cupolad.socket", unit("socket", LoadState="masked")),
    Case("cupolad.socket", PROBLEM, "(bad-setting): it is bad", "systemd-analyze verify", unit("socket", LoadState="bad-setting", LoadError="it is bad")),
    Case("cupolad.socket", PROBLEM, "is inactive, so nobody listens", "sudo systemctl enable --now cupolad.socket", unit("socket", ActiveState="inactive")),
    Case("cupolad.socket", PROBLEM, "has failed (service-start-limit-hit)", "reset-failed", unit("socket", ActiveState="failed", Result="service-start-limit-hit")),
    Case("cupolad.socket", WARNING, "after the next start", "sudo systemctl enable cupolad.socket", unit("socket", UnitFileState="disabled", Listen=f"/{SOCKET} (Stream)")),
    Case("cupolad.socket", WARNING, "changed on disk", "daemon-reload", unit("socket", NeedDaemonReload="yes", Listen=f"/{SOCKET} (Stream)")),
    Case("cupolad.socket", WARNING, "listens at /a b, /c, but you ask at", "CUPOLA_SOCKET='/a b'", unit("socket", Listen="/a b (Stream)\n/c (Stream)")),
    Case("cupolad.socket", WARNING, "is inactive, so nobody listens for clients (but you ask another daemon, at /s)", "enable", both(unit("socket", ActiveState="inactive"), be(socket=Path("/s")))),
    Case("cupolad.socket", UNKNOWN, "Failed to connect to bus", "sudo cupola doctor", says(f"{SHOW} cupolad.socket", BUS)),
    Case("cupolad.socket", UNKNOWN, "no systemd", "daemon itself", no_systemd),

    Case("cupolad.service", OK, "is active (0 building)", None),
    Case("cupolad.service", OK, "is idle", None, unit("service", ActiveState="inactive", SubState="dead")),
    Case("cupolad.service", OK, "is activating (start)", None, unit("service", ActiveState="activating", SubState="start")),
    Case("cupolad.service", PROBLEM, "is not installed", "install the daemon", unit("service", LoadState="not-found")),
    Case("cupolad.service", PROBLEM, "(exit-code, status 78): its configuration is wrong", "sudo cupolad --check-config", unit("service", ExecMainStatus="78", **FAILED)),
    Case("cupolad.service", PROBLEM, "(exit-code, status 69)", "journalctl -u cupolad", unit("service", ExecMainStatus="69", **AUTO_RESTART)),
    Case("cupolad.service", PROBLEM, "(watchdog, status 6): 3 building", "journalctl -u cupolad", unit("service", **{**FAILED, "Result": "watchdog"}, ExecMainStatus="6", StatusText="3 building")),
    Case("cupolad.service", WARNING, "about to stop: draining: 1 building", "wait", unit("service", ActiveState="deactivating", SubState="stop-sigterm", StatusText="draining: 1 building")),
    Case("cupolad.service", WARNING, "started again 3 times", "journalctl -u cupolad", unit("service", NRestarts="3")),
    Case("cupolad.service", WARNING, "changed on disk", "daemon-reload", unit("service", NeedDaemonReload="yes")),
    Case("cupolad.service", UNKNOWN, "did not end", "sudo cupola doctor", says(f"{SHOW} cupolad.service", ProgramStuckError("it did not end"))),
    Case("cupolad.service", UNKNOWN, "no systemd", "daemon itself", no_systemd),

    Case("socket", OK, "is root:cupola, mode 0660, and you may use it", None),
    Case("socket", PROBLEM, "there is no /run/cupola/cupola.sock", "sudo systemctl enable --now cupolad.socket", remove(SOCKET)),
    Case("socket", PROBLEM, "there is no /run/cupola/cupola.sock", "as root, with `cupolad`", both(remove(SOCKET), no_systemd)),
    Case("socket", PROBLEM, "there is no /x/s", "--socket", be(socket=Path("/x/s"))),
    Case("socket", PROBLEM, "there is no /bin/busybox/s", "--socket", be(socket=Path("/bin/busybox/s"))),
    Case("socket", PROBLEM, "is not a socket", "sudo mv /run/cupola/cupola.sock", both(remove(SOCKET), write(SOCKET, ""))),
    Case("socket", PROBLEM, "/bin/busybox is not a socket", "name the right socket", be(socket=Path("/bin/busybox"))),
    Case("socket", PROBLEM, "so you may not use it", "member of the group cupola", stranger),
    Case("socket", PROBLEM, "root:root, mode 0660, so you may not", "SocketGroup=cupola", both(stranger, own("root"))),
    Case("socket", PROBLEM, "mode 0600, so you may not", "SocketMode=0660", both(stranger, lambda p: p.make_socket(0o600))),
    Case("socket", WARNING, "whoever runs that daemon sees", "trust", be(root_uid=USER)),
    Case("socket", UNKNOWN, "File name too long", "sudo cupola doctor", be(socket=Path("/" + "x" * 300))),

    Case("group", OK, "alice is in the group cupola", None),
    Case("group", OK, "root needs no group", None, be(uid=os.geteuid())),
    Case("group", OK, "open to you without the group cupola", None, be(groups=frozenset())),
    Case("group", OK, "alice is in the group cupola", None, remove(SOCKET)),
    Case("group", WARNING, "is not in the group cupola any more", "sudo usermod -aG cupola alice", left),
    Case("group", PROBLEM, "after this session began", "newgrp cupola", be(groups=frozenset(), may_write=lambda _: False)),
    Case("group", PROBLEM, "alice is not in the group cupola", "`sudo usermod -aG cupola alice`, then log in again", stranger),
    Case("group", PROBLEM, "there is no group cupola", "systemd-sysusers", both(stranger, no_group)),
    Case("group", PROBLEM, "there is no group cupola", "systemd-sysusers", both(stranger, own("root"))),
    Case("group", PROBLEM, "alice is not in the group builders", "-aG builders alice", both(stranger, own("builders"))),
    Case("group", UNKNOWN, f"user id {USER} is in no database", "getent passwd", both(stranger, lambda p: p.book.users.pop(USER))),
]
# fmt: on


def _title(case: Case) -> str:
    return f"{case.check}-{case.verdict}-{case.found[:30]}"


# The fabricated machine borrows the host's device.
MARKS = {"fuse": [pytest.mark.fuse]}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=MARKS.get(case.check, ())) for case in CASES], ids=_title
)
def test_each_finding(case: Case, tmp_path: Path) -> None:
    patient = Patient(tmp_path)
    case.change(patient)
    (check,) = [check for check in CHECKS if check.name == case.check]
    finding = make(check, patient.system)
    assert finding.verdict == case.verdict, finding
    assert case.found in finding.found
    if case.remedy is None:
        assert finding.remedy is None
    else:
        assert finding.remedy is not None
        assert case.remedy in finding.remedy


@pytest.mark.parametrize("check", [c for c in CHECKS if c.name != "daemon"], ids=lambda c: c.name)
def test_every_verdict_that_a_check_can_give_is_shown(check: Check) -> None:
    """Those that are written in its module; what cannot be looked at is unknown besides."""
    tree = ast.parse(Path(inspect.getfile(check.work)).read_text())
    written = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    siblings = {c.name for c in CHECKS if inspect.getfile(c.work) == inspect.getfile(check.work)}
    shown = {str(case.verdict) for case in CASES if case.check in siblings}
    assert written & set(Verdict) <= shown
    assert {"ok", "problem"} <= {str(case.verdict) for case in CASES if case.check == check.name}


def test_what_the_doctor_knows_of_the_daemon_is_true(tmp_path: Path) -> None:
    sandbox = config.SandboxSection()
    assert settings.programs(Patient(tmp_path).system) == settings.Programs(
        sandbox.runtime, sandbox.shell
    )
    assert (sandbox.uid_base, sandbox.uid_count) == (namespaces.UID_BASE, namespaces.UID_COUNT)
    assert daemon_runc.ENVIRONMENT["PATH"] == PROGRAM_PATH
    assert str(config.DEFAULT_PATH) == settings.CONFIGURATION
    assert set(kernel_check.MACHINES) == set(seccomp._ARCHITECTURES)
    assert {
        kind.replace("mount", "mnt").replace("network", "net") for kind in spec._NAMESPACES
    } == {*namespaces.KINDS}


def test_the_last_configuration_wins(tmp_path: Path) -> None:
    patient = Patient(tmp_path)
    patient.write("etc/cupola/cupolad.toml", '[sandbox]\nshell = "/a"\nruntime = "/r"\n')
    patient.write("etc/cupola/cupolad.toml.d/2.toml", '[sandbox]\nshell = "/c"\n')
    patient.write("etc/cupola/cupolad.toml.d/1.toml", '[sandbox]\nshell = "/b"\nruntime = 5\n')
    assert settings.programs(patient.system) == settings.Programs("/r", "/c")


def test_programs_of_the_host_are_told_apart(tmp_path: Path) -> None:
    """The real files, where there are both kinds."""
    patient = Patient(tmp_path)
    patient.write("bin/busybox", Path("/bin/ls").read_bytes()).chmod(0o755)
    (check,) = [check for check in CHECKS if check.name == "shell"]
    assert make(check, patient.system).verdict is PROBLEM


def test_a_flaw_says_where_it_ends() -> None:
    for flaw in runtime._FLAWS:
        assert flaw.fixed > runtime._NEEDED
        assert all(fixed.startswith(start) for start, fixed in flaw.packages.items())


def test_the_state_directory_is_the_daemons() -> None:
    from cupolad.cli import _STATE

    assert state.STATE == _STATE

"""What a build sees, and what it cannot do."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from pathlib import Path

import pytest

import cupola.sync
from conftest import UID_BASE, Logged, output_of, shell
from cupola import BuildConstraints, BuildError, Name, SymlinkNode
from cupolad.testing import PrivateDaemon

STATUS = "cat /proc/self/status"


def test_identity(client: cupola.sync.Client) -> None:
    status = output_of(client, f"{STATUS}; umask; hostname; pwd; echo pid $$")
    assert re.search(r"Uid:\t1000\t1000\t1000\t1000", status)
    assert re.search(r"Gid:\t100\t100\t100\t100", status)
    assert re.search(r"Groups:\s*\n", status)
    for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
        assert f"Cap{kind}:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    assert status.endswith("0022\nlocalhost\n/build\npid 1\n")


def test_files_of_etc(client: cupola.sync.Client) -> None:
    assert output_of(client, "cat /etc/passwd /etc/group /etc/hosts; ls /etc") == (
        "root:x:0:0:Build root:/build:/noshell\n"
        "nixbld:x:1000:100:Build user:/build:/noshell\n"
        "nobody:x:65534:65534:Nobody:/:/noshell\n"
        "root:x:0:\nnixbld:!:100:\nnogroup:x:65534:\n"
        "127.0.0.1 localhost\n::1 localhost\n"
        "group\nhosts\npasswd\n"
    )


def test_the_environment_is_the_requests(client: cupola.sync.Client) -> None:
    variables = {"PATH": b"/bin", "A": "é=\n".encode(), "NOTIFY_SOCKET": b"/x", "LISTEN_FDS": b"3"}
    env = output_of(client, "tr '\\0' '|' < /proc/1/environ", environment_vars=variables)
    assert sorted(env.strip("|").split("|")) == sorted(
        ["A=é=\n", "HOME=/build", "LISTEN_FDS=3", "NOTIFY_SOCKET=/x", "PATH=/bin"]
    )


def test_descriptors_are_three(client: cupola.sync.Client) -> None:
    """The fourth is the directory that ls itself reads."""
    logged = Logged()
    client.build(shell(": > out; exec ls -l /proc/self/fd"), on_log=logged)
    found = [line.split()[8:] for line in logged.out.splitlines()[1:]]
    assert [entry[0] for entry in found] == ["0", "1", "2", "3"]
    assert [re.sub(r"\d+", "", entry[2]) for entry in found[:3]] == [
        "/dev/null",
        "pipe:[]",
        "pipe:[]",
    ]


def test_devices(client: cupola.sync.Client) -> None:
    listing = output_of(
        client, "ls /dev; echo; ls /dev/pts; echo hi > /dev/null; head -c3 /dev/zero | od -An -c"
    )
    assert set(listing.partition("\n\n")[0].split()) == {
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout",
        "tty", "urandom", "zero",
    }  # fmt: skip
    assert "\\0  \\0  \\0" in listing
    output_of(client, "echo x > /dev/stdout; echo x > /dev/stderr")


def test_only_scratch_and_tmpfs_are_writable(client: cupola.sync.Client) -> None:
    script = """
        for place in / /etc /etc/passwd /bin /bin/sh /dev /proc/sys/kernel/hostname /proc/sysrq-trigger /inputs /inputs/in; do
            if (: >> $place/x || : >> $place) 2>/dev/null; then echo "$place is writable"; fi
        done
        for place in /build /tmp /dev/shm; do : > $place/x || echo "$place is not writable"; done
    """
    inputs = {Name(b"in"): SymlinkNode(b"/build")}
    written = output_of(client, script, inputs=inputs)
    # The symlink itself leads to a place that is writable, as it should.
    assert written == "/inputs/in is writable\n"


def test_proc_is_masked(client: cupola.sync.Client) -> None:
    script = """
        for file in keys kcore timer_list sched_debug interrupts; do cat /proc/$file || :; done
        ls /proc/acpi
        ls /sys || echo no /sys
    """
    assert output_of(client, script) == "no /sys\n"


def test_the_network_is_its_own(client: cupola.sync.Client) -> None:
    script = """
        ip -o link | cut -d: -f2
        ip route | wc -l
        (echo pong | nc -l -p 4242) & sleep 0.3; nc 127.0.0.1 4242 < /dev/null
        nc -w 1 169.254.169.254 80 < /dev/null 2>/dev/null || echo unreachable
    """
    assert _with_busybox(client, script) == " lo\n0\npong\nunreachable\n"


def _with_busybox(client: cupola.sync.Client, script: str) -> str:
    """What a script writes that has all applets of busybox, not only those of its shell."""
    start = 'mkdir /tmp/bin; /inputs/busybox --install -s /tmp/bin; eval "$1"; : > out'
    logged = Logged()
    request = shell(
        "",
        inputs={Name(b"busybox"): client.import_path("/bin/busybox")},
        environment_vars={"PATH": b"/tmp/bin:/bin"},
        command_args=("/inputs/busybox", "sh", "-euc", start, "_", script),
    )
    client.build(request, on_log=logged)
    return logged.out


@pytest.mark.parametrize(
    ("what", "command"),
    [
        ("mount", "mount -t tmpfs none /tmp"),
        ("unmount", "umount /tmp"),
        ("a user namespace", "unshare -U true"),
        ("a mount namespace", "unshare -m true"),
        ("the host's name", "hostname evil"),
        ("chroot", "chroot /tmp /bin/sh -c true"),
        ("a device", "mknod /build/sda b 8 0"),
        ("another user", "su root -c true"),
        ("another owner", "chown 0:0 /build"),
        ("the clock", "adjtimex -o 5"),
        ("the kernel's log", "dmesg"),
        ("swap", "swapoff -a; swapon /dev/zero"),
        ("a better priority", "renice -n -5 $$"),
    ],
)
def test_what_fails(client: cupola.sync.Client, what: str, command: str) -> None:
    script = f"if {command} >/dev/null 2>&1; then echo allowed; else echo refused; fi"
    assert _with_busybox(client, script) == "refused\n"


def test_files_of_a_build_belong_to_its_range_on_the_host(
    client: cupola.sync.Client, daemon: PrivateDaemon
) -> None:
    """Seen from the host while the build runs; nothing of it could ever be root's."""
    owners: set[int] = set()

    def look(_: object) -> None:
        for scratch in (daemon.state / "bundles").glob("*/scratch"):
            below = [*scratch.glob("*"), *scratch.glob("*/*")]
            owners.update(path.lstat().st_uid for path in below)
            for directory in (scratch.parent.parent, scratch.parent, scratch):
                assert directory.stat().st_uid == 0
                assert directory.stat().st_mode & 0o777 == 0o700

    script = ": > out; chmod 6777 out; mkfifo fifo; ln -s / link; echo look; sleep 0.3; rm fifo"
    client.build(shell(script), on_log=look)
    assert len(owners) == 1
    (owner,) = owners
    assert owner >= UID_BASE
    assert (owner - UID_BASE) % 65536 == 1000


def test_two_builds_have_two_ranges(client: cupola.sync.Client) -> None:
    maps: list[str] = []
    barrier = "cat /proc/self/uid_map; sleep 0.5"
    threads = [
        threading.Thread(target=lambda: maps.append(output_of(client, barrier))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    starts = [int(line.split()[1]) for line in maps]
    assert all(line.split()[0::2] == ["0", "65536"] for line in maps)
    assert len(set(starts)) == 2
    assert all(start >= UID_BASE and start % 65536 == 0 for start in starts)


def test_the_state_directory_is_closed(daemon: PrivateDaemon) -> None:
    for directory in (daemon.state, daemon.directory / "run" / "runc"):
        assert directory.stat().st_mode & 0o777 == 0o700
    assert daemon.state.stat().st_uid == 0


def test_no_mount_of_the_daemon_shows_on_the_host(
    client: cupola.sync.Client, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("x")
    before = Path("/proc/self/mounts").read_text()
    seen: list[str] = []
    node = client.import_path(tmp_path)
    request = shell("ls /inputs/t; : > out; sleep 0.2", inputs={Name(b"t"): node})
    client.build(request, on_log=lambda _: seen.append(Path("/proc/self/mounts").read_text()))
    assert seen
    assert set(seen) == {before}


def test_a_symlink_input_leads_nowhere_on_the_host(client: cupola.sync.Client) -> None:
    inputs = {Name(b"etc"): SymlinkNode(b"/etc"), Name(b"up"): SymlinkNode(b"../../../../etc")}
    for extra in ({}, {"inputs_dir": "nix/store", "scratch_paths": ("build", "nix/store")}):
        place = extra.get("inputs_dir", "inputs")
        shown = output_of(
            client,
            f"readlink /{place}/etc; readlink /{place}/up; ls /{place}/etc/",
            inputs=inputs,
            **extra,
        )
        assert shown == "/etc\n../../../../etc\ngroup\nhosts\npasswd\n"


def test_without_a_shell(client: cupola.sync.Client) -> None:
    request = shell(": > out", constraints=BuildConstraints("x86_64-linux"))
    with pytest.raises(BuildError) as caught:
        client.build(request)
    assert caught.value.code == "build_failed"
    assert caught.value.details["exit_code"] == 127
    assert caught.value.message == "cannot execute /bin/sh: no such file or directory"


@pytest.mark.parametrize(
    ("setup", "program", "status", "says"),
    [
        ("", "/absent", 127, "cannot execute /absent: no such file or directory"),
        ("", "/build", 126, "cannot execute /build: permission denied"),
        ("x", "/build/file", 126, "cannot execute /build/file: permission denied"),
    ],
)
def test_programs_that_cannot_be_executed(
    client: cupola.sync.Client, setup: str, program: str, status: int, says: str
) -> None:
    request = shell("", command_args=(program,), additional_files={"build/file": setup.encode()})
    logged = Logged()
    with pytest.raises(BuildError) as caught:
        client.build(request, on_log=logged)
    assert (caught.value.details["exit_code"], caught.value.message) == (status, says)
    assert logged.streams == {"stdout": b"", "stderr": b""}


def test_additional_files_and_working_dir(client: cupola.sync.Client) -> None:
    shown = output_of(
        client,
        "pwd; cat ../note /other/x/y; ls -l /other/x/y | cut -c1-10; stat -c %u:%g /other/x . ../note; cd /build",
        working_dir="build/new/dir",
        scratch_paths=("build", "other"),
        additional_files={"build/new/note": b"hello ", "other/x/y": b"there\n"},
    )
    assert shown == "/build/new/dir\nhello there\n-rw-r--r--\n1000:100\n1000:100\n1000:100\n"


def test_scratch_is_empty_and_ours(client: cupola.sync.Client) -> None:
    assert output_of(
        client, "ls -A | wc -l; stat -c '%a %u:%g' . /other", scratch_paths=("build", "other")
    ) == ("0\n700 1000:100\n700 1000:100\n")


def test_a_build_cannot_use_the_daemon(client: cupola.sync.Client, daemon: PrivateDaemon) -> None:
    """There is no way to the socket from inside; and somebody with a build's id is sent away."""
    script = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        " sys.stdout.buffer.write(s.recv(1000))"
    )
    uid = UID_BASE + 65536 * 3 + 1000
    answer = subprocess.check_output(
        ["/usr/bin/python3", "-c", script, str(daemon.socket)], user=uid, group=uid, extra_groups=[]
    )
    assert b"denied" in answer
    assert (
        output_of(client, f"ls {os.path.dirname(daemon.socket)} 2>&1 | sed 's/.*: //'")
        == "No such file or directory\n"
    )


class BehindReadOnlyProc(PrivateDaemon):
    """A daemon that sees no whole /proc, as under systemd's ProtectKernelTunables."""

    @property
    def command(self) -> list[str]:
        """How it is started."""
        hide = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys"
        return ["unshare", "--mount", "sh", "-c", f'{hide} && exec "$@"', "sh", *super().command]


def test_a_daemon_that_sees_no_whole_proc() -> None:
    with BehindReadOnlyProc() as daemon, cupola.sync.connect(daemon.socket) as client:
        assert client.build(shell("test -e /proc/self/status; : > out")).status == "built"

"""The runtime spec: golden files, without root; and what no spec may ever grant.

To accept a change on purpose, run the tests with CUPOLA_WRITE_GOLDEN=1 and read the diff.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cupola.messages import BuildConstraints, BuildRequest
from cupola.nodes import Digest, DirectoryNode, FileNode, Name, Node, SymlinkNode
from cupolad import seccomp
from cupolad.host.cgroups import CgroupLimits
from cupolad.host.uids import UidRange
from cupolad.layout import Layout
from cupolad.paths import SandboxPath
from cupolad.spec import SandboxSettings, make_spec

GOLDEN = Path(__file__).parent / "golden"
DIGEST = Digest(b"\1" * 32)
INPUTS: dict[Name, Node] = {
    Name(b"dir"): DirectoryNode(DIGEST, 1),
    Name(b"file"): FileNode(DIGEST, 1),
    Name(b"link"): SymlinkNode(b"/etc"),
}
SETTINGS = SandboxSettings(
    shell="/bin/busybox",
    machine="x86_64",
    tmp_bytes=1 << 30,
    shm_bytes=1 << 20,
    open_files=65_536,
    limits=CgroupLimits(memory=1 << 30, processes=100, cpus=1.5),
)
MINIMAL = BuildRequest(
    command_args=("/inputs/prog",),
    outputs=("build/out",),
    constraints=BuildConstraints("x86_64-linux"),
)
REQUESTS = {
    "minimal": MINIMAL,
    "inputs": replace(
        MINIMAL,
        inputs=INPUTS,
        environment_vars={"A": b"1", "B": "é=".encode()},
        constraints=BuildConstraints("x86_64-linux", provide_bin_sh=True),
    ),
    "nix": replace(
        MINIMAL,
        inputs=INPUTS,
        inputs_dir="nix/store",
        scratch_paths=("build", "nix/store"),
        outputs=("nix/store/out",),
        constraints=BuildConstraints("x86_64-linux", available_ro_paths=("/etc/ssl/certs",)),
    ),
}


def spec_of(request: BuildRequest, settings: SandboxSettings = SETTINGS) -> dict[str, Any]:
    """The spec of a request, with everything else fixed."""
    layout = Layout.plan(
        "0" * 32,
        Path("/state/bundles"),
        Path("/stage"),
        SandboxPath(request.inputs_dir),
        request.inputs,
        tuple(map(SandboxPath, request.scratch_paths)),
    )
    return make_spec(request, layout, UidRange(0x34000000), settings, "/cupola-x/0/container")


@pytest.mark.parametrize("name", REQUESTS)
def test_golden(name: str) -> None:
    spec = spec_of(REQUESTS[name])
    profile = spec["linux"].pop("seccomp")
    assert profile == seccomp.profile("x86_64")
    text = json.dumps(spec, indent=2, ensure_ascii=False) + "\n"
    file = GOLDEN / f"{name}.json"
    if os.environ.get("CUPOLA_WRITE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text()


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_what_no_build_ever_gets(request_: BuildRequest) -> None:
    spec = spec_of(request_)
    process, linux = spec["process"], spec["linux"]
    assert process["noNewPrivileges"] is True
    assert process["terminal"] is False
    assert set(process["capabilities"]) == {
        "bounding",
        "effective",
        "inheritable",
        "permitted",
        "ambient",
    }
    assert not any(process["capabilities"].values())
    assert spec["root"]["readonly"] is True
    assert {n["type"] for n in linux["namespaces"]} == {
        "pid", "ipc", "uts", "mount", "user", "network", "cgroup",
    }  # fmt: skip
    assert not any("path" in namespace for namespace in linux["namespaces"])
    for mapping in (linux["uidMappings"], linux["gidMappings"]):
        assert mapping == [{"containerID": 0, "hostID": 0x34000000, "size": 65536}]
    assert linux["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    for mount in spec["mounts"]:
        assert "nosuid" in mount["options"], mount
        writable = mount["type"] == "bind" and not {"ro", "rro"} & set(mount["options"])
        assert not writable or mount["source"].startswith("/state/bundles/"), mount


def test_a_symlink_is_never_a_bind_source() -> None:
    for name in ("inputs", "nix"):
        sources = [mount["source"] for mount in spec_of(REQUESTS[name])["mounts"]]
        assert not any(source.endswith("/link") for source in sources)


def test_environment_is_the_requests_and_nothing_else() -> None:
    assert spec_of(REQUESTS["inputs"])["process"]["env"] == ["A=1", "B=é="]
    assert spec_of(MINIMAL)["process"]["env"] == []


def test_limits_that_are_off_are_left_out() -> None:
    spec = spec_of(MINIMAL, replace(SETTINGS, limits=CgroupLimits()))
    assert spec["linux"]["resources"] == {"devices": [{"allow": False, "access": "rwm"}]}


def test_few_open_files() -> None:
    limits = spec_of(MINIMAL, replace(SETTINGS, open_files=100))["process"]["rlimits"]
    assert {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 100} in limits


# --- seccomp -------------------------------------------------------------------------------------

FORBIDDEN = """
acct add_key bpf chroot clock_adjtime clock_settime clone3 create_module delete_module finit_module
fsconfig fsmount fsopen fspick init_module io_uring_enter io_uring_register io_uring_setup ioperm
iopl kexec_file_load kexec_load keyctl lookup_dcookie mount mount_setattr move_mount
name_to_handle_at nfsservctl open_by_handle_at open_tree perf_event_open pivot_root quotactl
quotactl_fd reboot request_key setdomainname sethostname setns settimeofday socketcall swapoff
swapon sysfs syslog umount umount2 unshare userfaultfd vhangup vm86 vm86old
""".split()


def _allowed_without_condition() -> set[str]:
    return {
        name
        for rule in seccomp.profile("x86_64")["syscalls"]
        if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule
        for name in rule["names"]
    }


def test_dangerous_calls_are_not_allowed() -> None:
    profile = seccomp.profile("x86_64")
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert not _allowed_without_condition() & set(FORBIDDEN)
    assert not _allowed_without_condition() & {"socket", "clone", "personality"}


def test_what_builds_need_is_allowed() -> None:
    needed = {"execve", "ptrace", "mmap", "mprotect", "memfd_create", "bind", "seccomp", "rseq"}
    assert needed <= _allowed_without_condition()


def test_no_call_is_listed_twice() -> None:
    names = seccomp.profile("x86_64")["syscalls"][0]["names"]
    assert len(names) == len(set(names))


def test_machines() -> None:
    assert "SCMP_ARCH_AARCH64" in seccomp.profile("aarch64")["architectures"]
    with pytest.raises(ValueError, match="no seccomp profile for mips"):
        seccomp.profile("mips")

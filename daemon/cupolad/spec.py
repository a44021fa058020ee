"""The OCI runtime spec of a build: a pure function, without disk, clock or environment.

What is granted is listed here and nothing else is: all namespaces are the build's own, there are
no capabilities, the root is read-only, and the only writable places are scratch and tmpfs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from cupola.messages import BuildRequest
from cupolad import seccomp
from cupolad.host.cgroups import CgroupLimits
from cupolad.host.uids import RANGE, UidRange
from cupolad.layout import BUILD_GID, BUILD_UID, Layout

_NAMESPACES: Final = ("pid", "ipc", "uts", "mount", "user", "network", "cgroup")
_CAPABILITY_SETS: Final = ("bounding", "effective", "inheritable", "permitted", "ambient")

_MASKED: Final = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/cmdline",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
)
_READ_ONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_SOFT_OPEN_FILES: Final = 1024
"""Programs that use select() break above it; others raise it themselves."""


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """What the administrator decides about every sandbox."""

    shell: str
    """Host path of a static shell."""
    machine: str
    """The kernel's name for the processor, such as `x86_64`."""
    tmp_bytes: int
    shm_bytes: int
    open_files: int
    """Hard limit of open files for each process."""
    limits: CgroupLimits


def make_spec(
    request: BuildRequest,
    layout: Layout,
    uids: UidRange,
    settings: SandboxSettings,
    cgroup: str,
) -> dict[str, Any]:
    """The `config.json` of a build whose parts lie as `layout` says, in the cgroup `cgroup`."""
    mapping = [{"containerID": 0, "hostID": uids.base, "size": RANGE}]
    return {
        "ociVersion": "1.0.2",
        "process": _process(request, settings),
        "root": {"path": str(layout.rootfs), "readonly": True},
        "hostname": "localhost",
        "mounts": [
            *_own_mounts(settings),
            *_shell(request, settings),
            *_scratch(layout),
            *_inputs(layout),
            *_host_paths(request),
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in _NAMESPACES],
            "uidMappings": mapping,
            "gidMappings": mapping,
            "cgroupsPath": cgroup,
            "resources": _resources(settings.limits),
            "rootfsPropagation": "private",
            "seccomp": seccomp.profile(settings.machine),
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
        },
    }


def _process(request: BuildRequest, settings: SandboxSettings) -> dict[str, Any]:
    hard = settings.open_files
    soft = min(_SOFT_OPEN_FILES, hard)
    return {
        "terminal": False,
        "user": {"uid": BUILD_UID, "gid": BUILD_GID, "umask": 0o022},
        "args": list(request.command_args),
        "env": [f"{key}={value.decode()}" for key, value in request.environment_vars.items()],
        "cwd": f"/{request.working_dir}",
        "capabilities": {kind: [] for kind in _CAPABILITY_SETS},
        "noNewPrivileges": True,
        "oomScoreAdj": 500,
        "rlimits": [
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            {"type": "RLIMIT_NOFILE", "soft": soft, "hard": hard},
        ],
    }


def _own_mounts(settings: SandboxSettings) -> list[dict[str, Any]]:
    """What every sandbox has."""
    return [
        _mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "noexec", "mode=755", "size=64k", "ro"),
        _mount(
            "/dev/pts",
            "devpts",
            "devpts",
            "nosuid",
            "noexec",
            "newinstance",
            "ptmxmode=0666",
            "mode=0620",
            "gid=5",
        ),
        _mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            "nosuid",
            "nodev",
            "noexec",
            "mode=1777",
            f"size={settings.shm_bytes}",
        ),
        _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        _mount(
            "/tmp", "tmpfs", "tmp", "nosuid", "nodev", "mode=1777", f"size={settings.tmp_bytes}"
        ),
    ]


def _shell(request: BuildRequest, settings: SandboxSettings) -> list[dict[str, Any]]:
    if not request.constraints.provide_bin_sh:
        return []
    return [_bind("/bin/sh", settings.shell, "bind", "ro", "nosuid", "nodev")]


def _scratch(layout: Layout) -> list[dict[str, Any]]:
    return [
        _bind(f"/{scratch.path}", str(scratch.source), "rbind", "rw", "nosuid", "nodev")
        for scratch in layout.scratch
    ]


def _inputs(layout: Layout) -> list[dict[str, Any]]:
    """One mount for all; inputs among scratch come with the scratch path that holds them."""
    if not layout.inputs or layout.inputs_among_scratch:
        return []
    source = str(layout.inputs_mount)
    return [_bind(f"/{layout.inputs_dir}", source, "rbind", "rro", "nosuid", "nodev")]


def _host_paths(request: BuildRequest) -> list[dict[str, Any]]:
    return [
        _bind(path, path, "rbind", "rro", "nosuid")
        for path in request.constraints.available_ro_paths
    ]


def _resources(limits: CgroupLimits) -> dict[str, Any]:
    resources: dict[str, Any] = {"devices": [{"allow": False, "access": "rwm"}]}
    if limits.memory is not None:
        resources["memory"] = {"limit": limits.memory, "swap": limits.memory}
    if limits.processes is not None:
        resources["pids"] = {"limit": limits.processes}
    if limits.cpus is not None:
        resources["cpu"] = {"period": 100_000, "quota": int(limits.cpus * 100_000)}
    return resources


def _mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def _bind(destination: str, source: str, *options: str) -> dict[str, Any]:
    return _mount(destination, "bind", source, *options)

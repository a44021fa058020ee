"""What a build could leave behind in a machine: all of it carries the build's id in its name."""

from __future__ import annotations

from pathlib import Path

from guest import Guest

from cupolad.config import SandboxSection

_BUILD_ID = "[0-9a-f]{32}"

_GROUPS = f"find /sys/fs/cgroup -type d | grep -E '/[^/]*{_BUILD_ID}[^/]*$'"

_OTHERS = f"""
systemctl list-units --all --plain --no-legend 'cupola-build-*'
find /var/lib/cupola/bundles /run/cupola/runc -mindepth 1 -maxdepth 1
find /var/lib/cupola/incoming -mindepth 2
find /sys/fs/fuse/connections -mindepth 1 -maxdepth 1
ls -d /proc/[0-9]*/root/mnt/* | grep -E '/{_BUILD_ID}$'
grep -h -E '/{_BUILD_ID}' /proc/[0-9]*/mounts
ps -e -o uid=,pid=,args= | awk '$1 >= base && $1 < base + count' base="$1" count="$2"
"""


def build_groups(machine: Guest) -> list[Path]:
    """The cgroups of builds, in every hierarchy."""
    return [Path(line) for line in machine.run("sh", "-c", _GROUPS).stdout.splitlines()]


def remains(machine: Guest) -> list[str]:
    """Units, cgroups, directories, mounts, FUSE connections and processes of builds, as they are now."""
    sandbox = SandboxSection()
    ids = (str(sandbox.uid_base), str(sandbox.uid_count))
    others = machine.run("sh", "-c", _OTHERS, "sh", *ids).stdout.splitlines()
    return [*map(str, build_groups(machine)), *others]

"""Where the parts of one build lie, on the host and in the sandbox; a value, computed not found.

    <state>/bundles/<id>/       0700
        config.json             the OCI runtime spec
        runc.log                what runc has to say
        pid                     the process id of the container's first process
        inputs/                 the FUSE mount of all inputs
        scratch/<n>/            the n-th scratch path; the only places that the build can write
    <stage>/<id>/               the container's read-only root, on the daemon's private tmpfs

Inputs show up in the sandbox as one mount of `inputs/` at `inputs_dir`, unless `inputs_dir` lies
in a scratch path (the Nix case): then each is mounted by itself among what the build writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cupola.nodes import Name, Node, SymlinkNode
from cupolad.paths import SandboxPath

BUILD_UID: Final = 1000
"""The user that the build runs as, inside the sandbox."""
BUILD_GID: Final = 100


@dataclass(frozen=True, slots=True)
class Scratch:
    """A scratch path: where the build sees it, and the directory that it is."""

    path: SandboxPath
    source: Path


@dataclass(frozen=True, slots=True)
class Layout:
    """The places of one build."""

    build_id: str
    bundle: Path
    rootfs: Path
    inputs_dir: SandboxPath
    inputs: Mapping[Name, Node]
    scratch: tuple[Scratch, ...]

    @classmethod
    def plan(
        cls,
        build_id: str,
        bundles: Path,
        stage: Path,
        inputs_dir: SandboxPath,
        inputs: Mapping[Name, Node],
        scratch_paths: tuple[SandboxPath, ...],
    ) -> Layout:
        """The layout of build `build_id` below `bundles` and `stage`."""
        bundle = bundles / build_id
        scratch = tuple(
            Scratch(path, bundle / "scratch" / str(number))
            for number, path in enumerate(scratch_paths)
        )
        return cls(build_id, bundle, stage / build_id, inputs_dir, inputs, scratch)

    @property
    def stage(self) -> Path:
        """The daemon's private tmpfs."""
        return self.rootfs.parent

    @property
    def runc_log(self) -> Path:
        """What runc reports, as JSON lines."""
        return self.bundle / "runc.log"

    @property
    def pid_file(self) -> Path:
        """Where runc writes the process id of the container's first process."""
        return self.bundle / "pid"

    @property
    def inputs_mount(self) -> Path:
        """Where the inputs are mounted on the host."""
        return self.bundle / "inputs"

    def locate(self, path: SandboxPath) -> tuple[Scratch, str] | None:
        """The scratch that holds `path`, and the path in it; None if none does."""
        for scratch in self.scratch:
            if path.is_at_or_below(scratch.path):
                return scratch, path.relative_to(scratch.path)
        return None

    def is_in_input(self, path: SandboxPath) -> bool:
        """Whether `path` is an input or lies in one."""
        if not path.is_below(self.inputs_dir):
            return False
        return path.relative_to(self.inputs_dir).partition("/")[0].encode() in self.inputs

    @property
    def inputs_among_scratch(self) -> bool:
        """Whether each input is mounted by itself, in a place that the build can write."""
        return self.locate(self.inputs_dir) is not None

    @property
    def bound_inputs(self) -> list[str]:
        """The names of the inputs that are bound into a scratch path. Symlinks need no mount."""
        if not self.inputs_among_scratch:
            return []
        return [n.decode() for n, node in self.inputs.items() if not isinstance(node, SymlinkNode)]

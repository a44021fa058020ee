"""What validation is told of limits, policy and the store, and what it returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cupola.directories import Directory
from cupola.messages import BuildRequest
from cupola.nodes import Digest, Node
from cupolad.paths import SandboxPath


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The most that one request may hold; the names are those of the configuration."""

    inputs: int = 20_000
    command_args: int = 4_096
    environment_vars: int = 4_096
    argument_bytes: int = 131_071
    """Of one argument, or one `NAME=value` (MAX_ARG_STRLEN of Linux without its NUL)."""
    arguments_bytes: int = 1024 * 1024
    """Of all arguments and variables together."""
    outputs: int = 256
    scratch_paths: int = 32
    additional_files: int = 1_024
    additional_files_bytes: int = 16 * 1024 * 1024
    refscan_needles: int = 20_000
    needle_bytes: int = 255
    needles_bytes: int = 1024 * 1024
    """Of all needles together; compiling them costs memory and time."""
    available_ro_paths: int = 16


@dataclass(frozen=True, slots=True)
class Policy:
    """What the administrator grants to one user."""

    systems: tuple[str, ...]
    memory: int | None
    """The most memory of one build, in bytes."""
    network_access: bool
    available_ro_paths: frozenset[str]


class Inputs(Protocol):
    """What validation asks of the store."""

    def require(self, nodes: Sequence[Node], /) -> None:
        """Check that each node is present and as large as it says."""
        ...

    def directory(self, digest: Digest, /) -> Directory:
        """A directory that is present."""
        ...


@dataclass(frozen=True, slots=True)
class ValidRequest:
    """A request that keeps every rule, with its paths as types."""

    request: BuildRequest
    inputs_dir: SandboxPath
    scratch_paths: tuple[SandboxPath, ...]
    outputs: tuple[SandboxPath, ...]

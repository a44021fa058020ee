"""Every request and result of the protocol, as types; no behaviour.

A field's comment says what MUST hold for it.  `wire.py` maps the types to CBOR and refuses wrong
shapes; `cupolad.request` checks the MUSTs of a `BuildRequest` that need the daemon's knowledge.
`docs/protocol.md` tells when each message is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from cupola.nodes import Digest, FileNode, Name, Node

# --- a build -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BuildConstraints:
    """What a build demands of the machine that runs it."""

    system: str
    """MUST be one of the daemon's systems, for example `x86_64-linux`."""
    min_memory: int = 0
    """Bytes; MUST fit into the memory that the daemon grants to a build."""
    available_ro_paths: tuple[str, ...] = ()
    """Host paths to show read-only. MUST be clean, absolute, sorted, unique, and allowed."""
    network_access: bool = False
    """MUST be granted to the user by the administrator."""
    provide_bin_sh: bool = False
    """Whether `/bin/sh` is the daemon's sandbox shell."""


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """One build. All paths MUST be clean and relative to the build's root, unless said otherwise.

    Clean: not empty, no NUL, no leading, trailing or doubled slash, no component `.` or `..`.
    """

    command_args: tuple[str, ...]
    """Program and arguments. The program MUST be an absolute path inside the sandbox."""
    outputs: tuple[str, ...]
    """Paths to keep. MUST be unique, not nested, each below a scratch path, clear of inputs."""
    constraints: BuildConstraints
    inputs: Mapping[Name, Node] = field(default_factory=dict)
    """Shown read-only as `inputs_dir`/name. Objects they name MUST be in the store."""
    inputs_dir: str = "inputs"
    working_dir: str = "build"
    """Where the program starts; made if it lies below a scratch path."""
    scratch_paths: tuple[str, ...] = ("build",)
    """Writable directories. MUST be sorted, unique, clear of what the sandbox itself provides."""
    environment_vars: Mapping[str, bytes] = field(default_factory=dict)
    """All variables of the program. Names MUST be free of `=`; values MUST be UTF-8."""
    additional_files: Mapping[str, bytes] = field(default_factory=dict)
    """Files to write before the start. Each path MUST lie below a scratch path."""
    refscan_needles: tuple[bytes, ...] = ()
    """What to look for in the outputs, each 1..255 bytes."""


@dataclass(frozen=True, slots=True)
class BuildOutput:
    """One output of a finished build."""

    path: str
    """As in the request."""
    node: Node
    needles: tuple[int, ...]
    """Indexes into the request's `refscan_needles`, ascending: those found in this output."""


@dataclass(frozen=True, slots=True)
class BuildTimes:
    """When things happened, in milliseconds since 1970 (UTC)."""

    queued: int
    started: int
    finished: int


@dataclass(frozen=True, slots=True)
class BuildUsage:
    """What a build used."""

    wall_us: int
    """Microseconds between start and end of the program."""
    cpu_us: int
    """Microseconds of processor time, all processes together."""
    memory_peak: int
    """Bytes, all processes and their tmpfs files together."""


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A finished build."""

    build_id: str
    status: Literal["built", "shared", "cached"]
    outputs: tuple[BuildOutput, ...]
    """In the order of the request's `outputs`."""
    times: BuildTimes
    usage: BuildUsage
    log: FileNode | None
    """What the build wrote to stdout and stderr, as it came; None if it wrote nothing."""


# --- client to daemon ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of a connection."""

    versions: tuple[int, ...]
    """Protocol versions that the client speaks."""
    client: str
    """Name and version of the program, for the daemon's log."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Asks which of these objects the store lacks."""

    blobs: tuple[Digest, ...] = ()
    directories: tuple[Digest, ...] = ()


@dataclass(frozen=True, slots=True)
class PutBlobs:
    """Uploads small blobs, each whole."""

    blobs: tuple[tuple[Digest, bytes], ...]
    """Digest and data; the digest MUST be that of the data."""


@dataclass(frozen=True, slots=True)
class PutBlob:
    """Starts the upload of one blob in chunks; `PutChunk`s follow until `size` bytes have come."""

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class PutChunk:
    """The next bytes of the blob that `PutBlob` started; MUST NOT be empty."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PutDirectories:
    """Uploads directories in their canonical encoding.

    Everything that a directory names MUST be in the store or have been uploaded before it.
    """

    directories: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Commit:
    """Ends an upload; the answer `Stored` comes when all of it is durable."""


@dataclass(frozen=True, slots=True)
class GetBlobs:
    """Asks for the contents of blobs; the answer is `BlobData`… and `End`."""

    digests: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class GetDirectories:
    """Asks for directories; the answer is `DirectoryData`… and `End`, in the order asked for."""

    digests: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class Build:
    """Asks for a build; the answer is `Queued`, `Started`, `Log`… and `BuildResult`."""

    request: BuildRequest


@dataclass(frozen=True, slots=True)
class Status:
    """Asks how the daemon is doing; the answer is `StatusReport`."""


# --- daemon to client ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Welcome:
    """The answer to `Hello`."""

    version: int
    """The one version, out of the client's, that this connection speaks."""
    server: str
    limits: Mapping[str, int]
    """The daemon's limits by name; see `docs/configuration.md`."""


@dataclass(frozen=True, slots=True)
class Absent:
    """The answer to `Missing`: those of the digests that the store lacks."""

    blobs: tuple[Digest, ...]
    directories: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """The answer to `Commit`: how much was uploaded, all of it durable."""

    blobs: int
    directories: int
    bytes: int


@dataclass(frozen=True, slots=True)
class BlobData:
    """Contents of blobs, in the order asked for."""

    parts: tuple[tuple[int, bytes], ...]
    """Index into the request's `digests`, and the next bytes of that blob."""


@dataclass(frozen=True, slots=True)
class DirectoryData:
    """Directories in their canonical encoding."""

    directories: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class End:
    """Ends a stream of `BlobData` or `DirectoryData`."""


@dataclass(frozen=True, slots=True)
class Queued:
    """The build is accepted and waits for a permit."""

    build_id: str


@dataclass(frozen=True, slots=True)
class Started:
    """The build has its permit."""

    build_id: str


@dataclass(frozen=True, slots=True)
class Log:
    """Bytes that the build wrote."""

    stream: Literal["stdout", "stderr"]
    data: bytes


@dataclass(frozen=True, slots=True)
class RunningBuild:
    """One line of a status report."""

    build_id: str
    uid: int
    state: Literal["queued", "running"]
    since: int
    """Milliseconds since 1970 (UTC)."""
    outputs: tuple[str, ...]
    """The first four, each cut to 256 characters."""


@dataclass(frozen=True, slots=True)
class StatusReport:
    """How the daemon is doing. `builds` holds the asking user's own builds; root sees all."""

    server: str
    uptime_ms: int
    max_builds: int
    running: int
    queued: int
    connections: int
    store_blobs: int
    store_directories: int
    store_bytes: int
    """Bytes of all blobs and encoded directories."""
    draining: bool
    limits: Mapping[str, int]
    builds: tuple[RunningBuild, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """The answer to any request that fails; see `errors.py` for the codes."""

    code: str
    message: str
    details: Mapping[str, object]


Request: TypeAlias = (
    Hello
    | Missing
    | PutBlobs
    | PutBlob
    | PutChunk
    | PutDirectories
    | Commit
    | GetBlobs
    | GetDirectories
    | Build
    | Status
)
Reply: TypeAlias = (
    Welcome
    | Absent
    | Stored
    | BlobData
    | DirectoryData
    | End
    | Queued
    | Started
    | Log
    | BuildResult
    | StatusReport
    | Failure
)
Message: TypeAlias = Request | Reply

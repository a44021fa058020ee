"""cupola: build software in sandboxes; the client library.

    async with cupola.connect() as client:
        node = await client.import_path("src")
        result = await client.build(cupola.BuildRequest(...))

`cupola.sync.connect()` has the same methods for programs without trio.
"""

from cupola.client import Client, connect
from cupola.directories import Directory
from cupola.errors import (
    BuildError,
    CupolaError,
    DaemonUnavailableError,
    HostError,
    RequestError,
)
from cupola.messages import (
    BuildConstraints,
    BuildOutput,
    BuildRequest,
    BuildResult,
    Log,
    StatusReport,
)
from cupola.nodes import Digest, DirectoryNode, FileNode, Name, Node, SymlinkNode
from cupola.progress import Progress
from cupola.version import __version__

__all__ = [
    "BuildConstraints",
    "BuildError",
    "BuildOutput",
    "BuildRequest",
    "BuildResult",
    "Client",
    "CupolaError",
    "DaemonUnavailableError",
    "Digest",
    "Directory",
    "DirectoryNode",
    "FileNode",
    "HostError",
    "Log",
    "Name",
    "Node",
    "Progress",
    "RequestError",
    "StatusReport",
    "SymlinkNode",
    "__version__",
    "connect",
]

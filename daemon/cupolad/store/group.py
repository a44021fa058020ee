"""A commit group: objects that become durable, and then present, in one step.

The order is: contents durable, files renamed into place, names durable, rows committed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cupola.nodes import Digest
from cupolad.store.blobs import Arrivals
from cupolad.store.database import Database, DirectoryRow


@dataclass(slots=True)
class CommitGroup:
    """Objects on their way into the store; its files lie in `arrivals` until it is committed."""

    arrivals: Arrivals
    blobs: dict[Digest, tuple[int, int]] = field(default_factory=dict)
    """Digest → number among the arrivals, size."""
    directories: dict[Digest, DirectoryRow] = field(default_factory=dict)
    bytes: int = 0

    def add_blob(self, digest: Digest, number: int, size: int) -> None:
        """Add the arrived file `number`, or drop it if it is in the group already."""
        if digest in self.blobs:
            self.arrivals.drop(number)
            return
        self.blobs[digest] = (number, size)
        self.bytes += size

    def add_directory(self, row: DirectoryRow) -> None:
        """Add a directory."""
        if row.digest not in self.directories:
            self.directories[row.digest] = row
            self.bytes += len(row.encoding)

    def __len__(self) -> int:
        return len(self.blobs) + len(self.directories)

    def commit(self, database: Database) -> None:
        """Make everything durable and present, and remove what is left of the arrivals."""
        try:
            if self:
                self.arrivals.publish([(d, number) for d, (number, _) in self.blobs.items()])
                rows = [(digest, size) for digest, (_, size) in self.blobs.items()]
                database.add(rows, list(self.directories.values()))
        finally:
            self.close()

    def close(self) -> None:
        """Drop what was not committed."""
        self.arrivals.close()

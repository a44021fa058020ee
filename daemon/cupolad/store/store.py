"""The store: blobs and directories by digest, on disk.

Everything here blocks; call it from a worker thread or from a process of its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cupola.directories import Directory
from cupola.nodes import Digest, Node
from cupolad.store.batch import Batch, StoreLimits, check_sizes
from cupolad.store.blobs import BlobFiles
from cupolad.store.database import Database


@dataclass(frozen=True, slots=True)
class StoreTotals:
    """How much is present; `bytes` counts blobs and encoded directories."""

    blobs: int
    directories: int
    bytes: int


class Store:
    """
    One process's handle on the store; safe to use from several threads, and processes.

        <state>/
            blobs/<2 hex>/<64 hex>      read-only files whose bytes hash to their name
            incoming/<2 hex>/...         files on their way to become blobs; dropped at start-up
            store.sqlite                which blobs are present, and the directories themselves

    A directory is present only when everything below it is, so to know that a whole tree is
    present it is enough to look at its root.
    """

    def __init__(self, state: Path, limits: StoreLimits | None = None) -> None:
        self.limits = limits or StoreLimits()
        self._blobs = BlobFiles(state)
        self._database = Database(state / "store.sqlite")

    @staticmethod
    def create(state: Path) -> None:
        """Make what is missing below `state`, and drop what killed writers left there."""
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        BlobFiles.create(state)
        Database.create(state / "store.sqlite")

    def close(self) -> None:
        """Close files and database."""
        self._database.close()
        self._blobs.close()

    def batch(self, token: str | None = None) -> Batch:
        """Start adding objects. By the `token`, `drop_arrivals` knows what a killed writer left."""
        token = token or secrets.token_hex(8)
        return Batch(self._blobs, self._database, self.limits, token)

    @staticmethod
    def drop_arrivals(state: Path, token: str) -> None:
        """Remove what a batch with this token left when its process was killed."""
        BlobFiles.drop_arrivals(state, token)

    def missing_blobs(self, digests: Iterable[Digest]) -> list[Digest]:
        """Those of the blobs that are absent, in the order given."""
        digests = list(digests)
        present = self._database.blob_sizes(digests)
        return [digest for digest in digests if digest not in present]

    def missing_directories(self, digests: Iterable[Digest]) -> list[Digest]:
        """Those of the directories that are absent, in the order given."""
        digests = list(digests)
        present = self._database.directory_sizes(digests)
        return [digest for digest in digests if digest not in present]

    def require(self, nodes: Iterable[Node]) -> None:
        """Check that every node is present, with all below it, and as large as it says.

        `missing_objects` names what is absent; ValueError tells of a wrong size.
        """
        nodes = list(nodes)
        digests = [node.digest for node in nodes if hasattr(node, "digest")]
        check_sizes(
            nodes, self._database.blob_sizes(digests), self._database.directory_sizes(digests)
        )

    def open_blob(self, digest: Digest) -> int:
        """Open a blob for reading; FileNotFoundError if there is no such file."""
        return self._blobs.open(digest)

    def blob_sizes(self, digests: Iterable[Digest]) -> dict[bytes, int]:
        """The size of each of the blobs that is present."""
        return self._database.blob_sizes(digests)

    def encodings(self, digests: Iterable[Digest]) -> dict[bytes, bytes]:
        """The canonical encoding of each of the directories that is present."""
        return self._database.encodings(digests)

    def directory(self, digest: Digest) -> Directory:
        """The directory `digest`; KeyError if it is absent, ValueError if it is damaged."""
        directory = Directory.decode(self._database.encodings([digest])[digest])
        if directory.digest != digest:
            raise ValueError(f"directory {digest.hex()} is damaged")
        return directory

    def totals(self) -> StoreTotals:
        """How much is present."""
        return StoreTotals(*self._database.totals())

"""The reference scan: which needles occur in an output's file contents, names and link targets.

Patterns are compiled once a build.  Contents are scanned as streams, so a needle is found across
any border of buffers, whatever its length and whichever others it overlaps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

import hyperscan

from cupolad.store.batch import Observer

_FLAGS: Final = hyperscan.HS_FLAG_SINGLEMATCH | hyperscan.HS_FLAG_DOTALL


class Needles:
    """The compiled needles of one build; a needle may occur twice in the list."""

    def __init__(self, needles: Sequence[bytes]) -> None:
        self.indexes: dict[bytes, list[int]] = {}
        for index, needle in enumerate(needles):
            self.indexes.setdefault(needle, []).append(index)
        # Single bytes are Hyperscan's worst case (256 of them take it 11 s to compile).
        self.single = bytes(needle[0] for needle in self.indexes if len(needle) == 1)
        self.longer = [needle for needle in self.indexes if len(needle) > 1]
        self.database: hyperscan.Database | None = None
        if self.longer:
            self.database = hyperscan.Database(mode=hyperscan.HS_MODE_STREAM)
            # Hyperscan's "literal" mode ends a pattern at its first NUL; escapes do not.
            self.database.compile(
                expressions=[b"".join(b"\\x%02x" % byte for byte in n) for n in self.longer],
                ids=list(range(len(self.longer))),
                elements=len(self.longer),
                flags=_FLAGS,
            )


class Scanner:
    """Gathers what is found in one output."""

    def __init__(self, needles: Needles) -> None:
        self._needles = needles
        self._found: set[bytes] = set()
        self._singles_left = needles.single

    def another(self) -> Scanner:
        """A scanner for the same needles that has found nothing."""
        return Scanner(self._needles)

    def include(self, other: Scanner) -> None:
        """Add what another scanner has found."""
        self._found |= other._found

    def found(self) -> list[int]:
        """The indexes of the needles found so far, ascending."""
        return sorted(index for needle in self._found for index in self._needles.indexes[needle])

    @property
    def done(self) -> bool:
        """Whether there is nothing left to look for."""
        return len(self._found) == len(self._needles.indexes)

    def scan(self, data: bytes) -> None:
        """Scan a name or a link target."""
        with self.stream() as observe:
            observe(memoryview(data))

    @contextlib.contextmanager
    def stream(self) -> Iterator[Observer]:
        """A function to feed with the pieces of one file, in order."""
        database = self._needles.database
        if database is None or self.done:
            yield self._scan_singles
            return
        # The binding borrows the callback: it has to live as long as the stream.
        callback = self._match
        with database.stream(match_event_handler=callback) as stream:

            def feed(data: memoryview) -> None:
                self._scan_singles(data)
                stream.scan(data)  # type: ignore[type-var]

            yield feed

    def _match(self, number: int, *_: object) -> None:
        self._found.add(self._needles.longer[number])

    def _scan_singles(self, data: memoryview) -> None:
        """Look for needles of one byte: delete all bytes but those; what is left was there."""
        if not self._singles_left:
            return
        others = bytes(set(range(256)) - set(self._singles_left))
        present = set(bytes(data).translate(None, delete=others))
        if present:
            self._found.update(bytes((byte,)) for byte in present)
            self._singles_left = bytes(b for b in self._singles_left if b not in present)

"""Leases of user id ranges: each running build has 65,536 ids that nobody else has.

The container's ids 0..65535 are mapped to the range; host id 0 is never among them.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

RANGE: Final = 65536
"""Ids in a range."""


@dataclass(frozen=True, slots=True)
class UidRange:
    """The host ids `base` to `base + 65535`, for users and groups alike."""

    base: int

    def host(self, container_id: int) -> int:
        """The host's id for an id inside the container."""
        if not 0 <= container_id < RANGE:
            raise ValueError("container ids lie between 0 and 65535")
        return self.base + container_id

    def __contains__(self, host_id: int) -> bool:
        return self.base <= host_id < self.base + RANGE


class UidPool:
    """Hands out disjoint ranges of `count` ids from `base` on, the longest unused one first."""

    def __init__(self, base: int, count: int) -> None:
        if base < RANGE or base % RANGE or count < RANGE or base + count > 2**31:
            raise ValueError(
                f"a pool of ids starts at a multiple of {RANGE} above 0, holds at least {RANGE}"
                " ids and ends below 2^31"
            )
        self._free = deque(UidRange(base + i * RANGE) for i in range(count // RANGE))
        self.size = len(self._free)
        self.ids = range(base, base + self.size * RANGE)

    @property
    def free(self) -> int:
        """How many ranges could be leased now."""
        return len(self._free)

    @contextlib.contextmanager
    def lease(self, unless: type[Exception] | tuple[()] = ()) -> Iterator[UidRange]:
        """A range for the length of the block; IndexError if none is free.

        If the block ends with an `unless`, the range may still be in use and is not leased again.
        """
        leased = self._free.popleft()
        try:
            yield leased
        except unless:
            raise
        except BaseException:
            self._free.append(leased)
            raise
        self._free.append(leased)

"""What the benchmarks share: timing, memory, and where the files lie."""

from __future__ import annotations

import mmap
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TOUCHED = 4 << 30


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    figure: str
    target: str
    met: bool | None


@contextmanager
def timed() -> Iterator[Callable[[], float]]:
    """Seconds since the block was entered; fixed when it is left."""
    start = time.perf_counter()
    end: float | None = None
    yield lambda: (end or time.perf_counter()) - start
    end = time.perf_counter()


def median_ms(seconds: list[float]) -> float:
    """The median, in milliseconds."""
    return statistics.median(seconds) * 1000


def resident_mib(pid: int) -> float:
    """Resident memory of a process in MiB (VmRSS)."""
    return _status(pid, "VmRSS") / 1024


def peak_mib(pid: int) -> float:
    """The most resident memory that a process ever had, in MiB (VmHWM)."""
    return _status(pid, "VmHWM") / 1024


def _status(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    raise KeyError(key)


def make_tree(root: Path, files: int, seed: int) -> int:
    """Make a tree of `files` small files, ten to a directory; the bytes of all of them."""
    source = random.Random(seed)
    total = 0
    for number in range(files // 10):
        directory = root / f"{number % 20:02}" / f"{number // 20 % 20:02}" / f"{number}"
        directory.mkdir(parents=True)
        for index in range(10):
            data = source.randbytes(source.randrange(200, 6000))
            total += len(data)
            (directory / f"file{index}.c").write_bytes(data)
    return total


def make_file(path: Path, size: int, seed: int) -> None:
    """Make a file of `size` random bytes."""
    source = random.Random(seed)
    with path.open("wb") as file:
        left = size
        while left:
            left -= file.write(source.randbytes(min(left, 1 << 24)))


def settle() -> None:
    """Write what is dirty, so that a measurement does not pay for what came before it.

    Memory is touched as well: the host of a virtual machine may have to find each page first, and
    was seen to take three seconds for a gigabyte.
    """
    os.sync()
    with mmap.mmap(-1, _TOUCHED) as memory:
        for offset in range(0, _TOUCHED, mmap.PAGESIZE):
            memory[offset] = 1


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| what | measured | target | |", "|---|---|---|---|"]
    for row in rows:
        mark = {True: "met", False: "missed", None: ""}[row.met]
        lines.append(f"| {row.what} | {row.figure} | {row.target} | {mark} |")
    return "\n".join(lines)

"""`make bench`: measures what the documentation claims and prints it as a table."""

from __future__ import annotations

import multiprocessing
import os
import platform
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import service
import transfer
import trivial_build
from harness import Row, table

AVAILABLE = {
    "trivial": trivial_build.run,
    "service": service.run,
    "transfer": transfer.run,
    "walk": transfer.run_walk,
}


def main() -> None:
    """Run the benchmarks named on the command line, or all of them, each in its own process."""
    if os.geteuid() != 0:
        raise SystemExit("the benchmarks start a root daemon: run them as root, or with sudo")
    rows: list[Row] = []
    for name in sys.argv[1:] or AVAILABLE:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            rows += process.submit(AVAILABLE[name]).result()
    runc = subprocess.check_output(["runc", "--version"], text=True).splitlines()[0]
    print(f"{os.cpu_count()} processors, Linux {platform.release()}, {runc},"
          f" Python {platform.python_version()}\n")  # fmt: skip
    print(table(rows))


if __name__ == "__main__":
    main()

"""`make bench`: measures what the documentation claims and prints it as a table."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import transfer
import trivial_build
from harness import table


def main() -> None:
    """Run the benchmarks named on the command line, or all of them."""
    if os.geteuid() != 0:
        raise SystemExit("the benchmarks start a root daemon: run them as root, or with sudo")
    # The last one leaves the host's mount namespace.
    available = {
        "transfer": transfer.run,
        "walk": transfer.run_walk,
        "trivial": trivial_build.run,
    }
    chosen = sys.argv[1:] or list(available)
    rows = [row for name in chosen for row in available[name]()]
    runc = subprocess.check_output(["runc", "--version"], text=True).splitlines()[0]
    print(f"{os.cpu_count()} processors, Linux {platform.release()}, {runc},"
          f" Python {platform.python_version()}\n")  # fmt: skip
    print(table(rows))


if __name__ == "__main__":
    main()

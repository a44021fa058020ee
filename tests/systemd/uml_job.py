"""Stands in on the host for a program in a machine of User-Mode Linux.

    python3 uml_job.py LINE DIRECTORY

Neither sockets nor pipes reach such a machine.  What standard input has is handed over as a file,
at once; then the job is announced on descriptor LINE.  What the program writes is passed on while
it runs, and its exit status at the end.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Final

_POLL_SECONDS: Final = 0.01


def main(line: int, directory: Path) -> int:
    """Run the job to its end; its exit status. FileNotFoundError if the machine ends before."""
    with (directory / "in").open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    for name in ("out", "err", "status"):
        (directory / name).touch()
    os.write(line, f"{directory.name}\n".encode())
    with (directory / "out").open("rb") as out, (directory / "err").open("rb") as err:
        while True:
            status = (directory / "status").read_text()
            for source, sink in ((out, sys.stdout.buffer), (err, sys.stderr.buffer)):
                shutil.copyfileobj(source, sink)
                sink.flush()
            if status.endswith("\n"):
                return int(status)
            time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2])))

"""Runs a command where /var/lib is a FUSE file system that takes requests and answers none.

    unshare --mount python stuck_state.py UID COMMAND…

What waits for it waits in the kernel, where no signal reaches it, until this program ends.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading

from cupolad.host import kernel

_SECONDS = 20

_HEADER = struct.Struct("=IIQ")
"""Of a request: length, operation and a number that the answer repeats; see fuse(4)."""
_ANSWER = struct.Struct("=IiQ")
_WELCOME = struct.Struct("=IIII HHI 9I")
"""`fuse_init_out` of `linux/fuse.h`, version 7.31."""


def main() -> int:
    """Mount, greet the kernel, and run the command while somebody reads requests in silence."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    kernel.mount("stuck", "/var/lib", "fuse.stuck", 0, options)
    _, _, number = _HEADER.unpack_from(os.read(device, 1 << 20))
    welcome = _WELCOME.pack(7, 31, 0, 0, 12, 9, 4096, 1, *[0] * 8)
    os.write(device, _ANSWER.pack(_ANSWER.size + len(welcome), 0, number) + welcome)
    threading.Thread(target=_read_for_ever, args=(device,), daemon=True).start()
    user, *command = sys.argv[1:]
    # A process that is stuck and holds the pipe would keep this from ending in time.
    done = subprocess.run(
        command,
        user=int(user),
        group=int(user),
        extra_groups=[],
        stdout=subprocess.PIPE,
        timeout=_SECONDS,
        check=False,
    )
    os.write(sys.stdout.fileno(), done.stdout)
    return done.returncode


def _read_for_ever(device: int) -> None:
    """A request that was read, and not answered, cannot be interrupted any more."""
    while True:
        os.read(device, 1 << 20)


if __name__ == "__main__":
    sys.exit(main())

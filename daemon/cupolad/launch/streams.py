"""The pipes that a build writes to."""

from __future__ import annotations

import os
from typing import Self

import trio


class Output:
    """The reading end of a pipe; close it when it is done with."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor

    async def receive(self, size: int) -> bytes:
        """What comes next, as soon as something does; nothing if every writer is gone."""
        while (data := self.receive_now(size)) is None:
            await trio.lowlevel.wait_readable(self._descriptor)
        return data

    def receive_now(self, size: int) -> bytes | None:
        """What is in the pipe; None if it is empty, nothing if every writer is gone as well."""
        try:
            return os.read(self._descriptor, size)
        except BlockingIOError:
            return None

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)


class Pipe:
    """A pipe for what the build writes; it belongs to the build's user, who may reopen it.

    At the end of the block the writing end is closed, which the container then has alone; if the
    block fails, so is the other.
    """

    def __init__(self, owner: int) -> None:
        reader, self.writer = os.pipe2(os.O_CLOEXEC)
        os.fchown(self.writer, owner, -1)
        self.output = Output(reader)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        os.close(self.writer)
        if kind is not None:
            self.output.close()

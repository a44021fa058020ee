"""The daemon's side of its conversation with systemd.

The library that speaks D-Bus blocks its whole process while it waits, so a helper does that.
"""

from __future__ import annotations

from typing import Any, Final

import trio

from cupola.errors import infrastructure
from cupolad.workers.pool import WorkerPool

ROLE: Final = "cupolad.workers.units:serve"
_ANSWER_SECONDS: Final = 20
_PREFIX: Final = "cupola-build-"


def unit_of(build_id: str) -> str:
    """The name of a build's unit."""
    return f"{_PREFIX}{build_id}.service"


class Systemd:
    """Process 1, asked by `helpers`. `root`: the cgroup below which all of its units lie."""

    def __init__(self, helpers: WorkerPool, root: str) -> None:
        self._helpers, self.root = helpers, root

    @classmethod
    async def connect(cls, helpers: WorkerPool) -> Systemd:
        """Reach it; `infrastructure` if it does not answer."""
        return cls(helpers, (await _ask(helpers, {"do": "root"}))["root"])

    async def start(self, unit: str, properties: dict[str, Any], stdout: int, stderr: int) -> None:
        """Start a transient unit with these descriptors; that it has begun is not waited for."""
        request = {"do": "start", "unit": unit, "properties": properties}
        await _ask(self._helpers, request, stdout, stderr)

    async def stop_builds(self) -> int:
        """Stop every unit of a build; how many there were."""
        return int((await _ask(self._helpers, {"do": "stop", "units": f"{_PREFIX}*"}))["count"])


async def _ask(helpers: WorkerPool, request: dict[str, Any], *descriptors: int) -> dict[str, Any]:
    """The answer to a request; never interrupted, so that it is known what was done."""
    with trio.move_on_after(_ANSWER_SECONDS, shield=True):
        async with helpers.worker() as helper:
            await helper.send(request)
            for descriptor in descriptors:
                await helper.send_descriptor(descriptor)
            answer: dict[str, Any] = await helper.receive()
        if "fault" in answer:
            raise infrastructure(f"systemd refuses: {answer['fault']}", retryable=True)
        return answer
    raise infrastructure("systemd does not answer; tell the administrator", retryable=True)

"""The fifth step: asks a helper to turn the outputs into nodes, and tells whose fault it was if not.

The daemon reads nothing below a scratch directory itself; see `workers/outputs.py` for the walk.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import trio

from cupola import errors, wire
from cupola.messages import BuildOutput
from cupolad.host.uids import UidRange
from cupolad.layout import Layout
from cupolad.paths import SandboxPath
from cupolad.store import Store, StoreLimits
from cupolad.workers.pool import WorkerPool

ROLE: Final = "cupolad.workers.outputs:serve"

_UNDO_SECONDS: Final = 30
_MANY_NEEDLES: Final = 1000
"""Compiling more than so many leaves a helper too large to be kept."""


def setup(state: Path, limits: StoreLimits) -> dict[str, object]:
    """What a helper is told once, before its first build."""
    return {"state": str(state), "limits": dataclasses.asdict(limits)}


async def ingest(
    layout: Layout,
    outputs: Sequence[SandboxPath],
    needles: Sequence[bytes],
    uids: UidRange,
    state: Path,
    pool: WorkerPool,
) -> tuple[BuildOutput, ...]:
    """The outputs of a build whose processes are all gone, durably stored, in their order.

    When this returns or raises, nobody works on the build's files any more, and nothing of them is
    left on its way into the store.
    """
    places = []
    for path in outputs:
        found = layout.locate(path)
        assert found is not None, "request.py lets outputs lie below scratch paths only"
        scratch, relative = found
        places.append(
            {"scratch": str(scratch.source), "path": relative.encode(), "shown": str(path)}
        )
    job = {
        "owner": uids.base,
        "outputs": places,
        "needles": list(needles),
        "token": layout.build_id,
    }
    async with pool.worker() as worker:
        try:
            worker.spent = len(needles) > _MANY_NEEDLES
            await worker.send(job)
            answer = await worker.receive()
        except BaseException:
            with trio.move_on_after(_UNDO_SECONDS, shield=True):
                worker.kill()
                await worker.ended()
                await trio.to_thread.run_sync(Store.drop_arrivals, state, layout.build_id)
            raise
    if "done" not in answer:
        raise _error(answer)
    return tuple(
        BuildOutput(str(path), wire.decode_node(found["node"]), tuple(found["needles"]))
        for path, found in zip(outputs, answer["done"], strict=True)
    )


def _error(answer: dict[str, Any]) -> Exception:
    if "error" in answer:
        told = answer["error"]
        return errors.from_code(told["code"], told["message"], told["details"])
    fault = answer["fault"]
    return OSError(fault["errno"], f"the outputs could not be stored: {fault['text']}")

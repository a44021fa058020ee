"""`cupola build`: imports what the request names by path, builds, and shows the result."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import trio

import cupola
from cupola import notation
from cupola.cli import display, failure
from cupola.cli.failure import UsageError
from cupola.cli.requestfile import RequestFile, load
from cupola.client import Client
from cupola.errors import CupolaError, HostError
from cupola.messages import BuildRequest, BuildResult, Log, Queued, Started


async def run(options: argparse.Namespace) -> int:
    """Run the build of a request file."""
    file = await trio.to_thread.run_sync(load, options.file)
    destinations = _destinations(file.request, options.out) if options.out else None
    show = _Show(quiet=options.quiet)
    async with cupola.connect(options.socket) as client:
        request = await _with_inputs(client, file)
        try:
            result = await client.build(
                request, on_log=show.log, on_state=show.state, on_retry=show.retry
            )
        except CupolaError as error:
            if options.quiet and not options.json:
                failure.show_log_tail(error)
            raise
        if destinations is not None:
            await _export(client, result, destinations)
    if options.json:
        print(json.dumps(_as_json(result)))
    else:
        show.result(result, request)
        for output in result.outputs:
            print(notation.to_text(output.node))
    return 0


async def _with_inputs(client: Client, file: RequestFile) -> BuildRequest:
    """The request, with the inputs that are given by path imported."""
    inputs = dict(file.request.inputs)
    for name, path in file.paths.items():
        with display.shown(display.importing) as progress:
            inputs[name] = await client.import_path(path, progress=progress)
    return replace(file.request, inputs=inputs)


def _destinations(request: BuildRequest, directory: Path) -> list[Path]:
    """Where each output is exported to; refused before the build if that cannot work."""
    destinations = [directory / Path(path).name for path in request.outputs]
    if len(set(destinations)) < len(destinations):
        raise UsageError("--out: two outputs have the same name; export them one by one instead")
    for destination in destinations:
        if destination.exists() or destination.is_symlink():
            raise UsageError(f"--out: {destination} exists already; remove it or name another DIR")
    return destinations


async def _export(client: Client, result: BuildResult, destinations: list[Path]) -> None:
    for output, destination in zip(result.outputs, destinations, strict=True):
        destination.parent.mkdir(parents=True, exist_ok=True)
        with display.shown(display.exporting) as progress:
            await client.export(output.node, destination, progress=progress)


class _Show:
    """What the user sees while the build runs, on standard error."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def log(self, log: Log) -> None:
        """The build's own words, as they are."""
        if not self._quiet:
            sys.stderr.buffer.write(log.data)
            sys.stderr.buffer.flush()

    def state(self, state: Queued | Started) -> None:
        """That the build waits, or starts."""
        word = "queued" if isinstance(state, Queued) else "started"
        print(f"cupola: build {state.build_id} {word}", file=sys.stderr)

    def retry(self, error: HostError) -> None:
        """That the daemon has gone, and what is done about it."""
        print(f"cupola: {error.message.partition(';')[0]}; asking again", file=sys.stderr)

    def result(self, result: BuildResult, request: BuildRequest) -> None:
        """What came of it."""
        print(
            f"cupola: {result.status} in {result.usage.wall_us / 1e6:.2f} s,"
            f" {result.usage.cpu_us / 1e6:.2f} s of processor time,"
            f" {notation.readable_size(result.usage.memory_peak)} of memory at most",
            file=sys.stderr,
        )
        for output in result.outputs:
            found = [notation.printable(request.refscan_needles[i]) for i in output.needles]
            needles = f", refers to {', '.join(found)}" if found else ""
            print(f"cupola: {output.path}{needles}", file=sys.stderr)
        if result.log is not None:
            print(f"cupola: log: cupola cat {notation.to_text(result.log)}", file=sys.stderr)


def _as_json(result: BuildResult) -> dict[str, Any]:
    return {
        "build_id": result.build_id,
        "status": result.status,
        "outputs": [
            {"path": o.path, "node": notation.to_json(o.node), "needles": list(o.needles)}
            for o in result.outputs
        ],
        "usage": asdict(result.usage),
        "times": asdict(result.times),
        "log": None if result.log is None else notation.to_json(result.log),
    }

"""`cupola import` and `cupola export`."""

from __future__ import annotations

import argparse
import json

import cupola
from cupola import notation
from cupola.cli import display
from cupola.cli.arguments import node_of


async def run_import(options: argparse.Namespace) -> int:
    """Store what is at the path and print its node."""
    async with cupola.connect(options.socket) as client:
        with display.shown(display.importing) as progress:
            node = await client.import_path(options.path, progress=progress)
    print(json.dumps(notation.to_json(node)) if options.json else notation.to_text(node))
    return 0


async def run_export(options: argparse.Namespace) -> int:
    """Write a node to disk."""
    node = node_of(options.node)
    async with cupola.connect(options.socket) as client:
        with display.shown(display.exporting) as progress:
            await client.export(node, options.dest, progress=progress)
    return 0

"""Progress on a terminal; silence where standard error is none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cupola.notation import readable_size
from cupola.progress import Progress


@contextmanager
def shown(describe: Callable[[Progress], str]) -> Iterator[Progress]:
    """Counters that are shown as `describe` words them, for the length of the block."""
    progress = Progress()
    if not sys.stderr.isatty():
        yield progress
        return
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner

    spinner = Spinner("dots")

    def render() -> Spinner:
        spinner.update(text=describe(progress))
        return spinner

    # Refreshed by a thread of its own, as often as a spinner wants.
    with Live(get_renderable=render, console=Console(stderr=True), transient=True):
        yield progress


def importing(progress: Progress) -> str:
    """How far an import is."""
    if not progress.files_to_send:
        return f"hashing: {progress.files_hashed:,} files, {readable_size(progress.bytes_hashed)}"
    return (
        f"uploading: {progress.files_sent:,} of {progress.files_to_send:,} files,"
        f" {readable_size(progress.bytes_sent)} of {readable_size(progress.bytes_to_send)}"
    )


def exporting(progress: Progress) -> str:
    """How far an export is."""
    return (
        f"writing: {progress.files_written:,} of {progress.files_to_write:,} files,"
        f" {readable_size(progress.bytes_written)} of {readable_size(progress.bytes_to_write)}"
    )

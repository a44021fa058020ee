"""Every kind of event has words, an identity of its own, and an entry in the catalog."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest

from cupolad import events
from cupolad.events import Event

ROOT = Path(__file__).parents[2]
CATALOG = (ROOT / "systemd/cupola.catalog").read_text()
EVENTS = {name: value for name, value in vars(events).items() if isinstance(value, Event)}
ENTRIES = dict(re.findall(r"^-- ([0-9a-f]{32})\n((?:(?!^-- ).*\n?)*)", CATALOG, re.MULTILINE))
SOURCES = [path.read_text() for path in (ROOT / "daemon").rglob("*.py") if path.name != "events.py"]


def test_identities() -> None:
    identities = [event.message_id for event in EVENTS.values()]
    assert len(set(identities)) == len(identities) > 20
    assert set(ENTRIES) == set(identities)


@pytest.mark.parametrize("name", EVENTS)
def test_an_entry_says_what_happened_and_names_only_fields_that_come(name: str) -> None:
    event, entry = EVENTS[name], ENTRIES[EVENTS[name].message_id]
    head, _, body = entry.partition("\n\n")
    assert re.search(r"^Subject: \S.*$", head, re.MULTILINE)
    assert "\nDefined-By: cupola" in head
    assert len(body.split()) > 8
    places = {place for _, place, _, _ in string.Formatter().parse(event.text) if place}
    told = {"build_id", "uid", "output", "request"} if "{build_id}" in event.text else set()
    told |= {"stream", "uid"} if name == "LINE" else set()
    told |= {"cpu_us", "memory"} if name == "BUILT" else set()
    told |= {"code", "reason"} if name in {"CANCELLED", "REFUSED"} else set()
    named = {field.lower() for field in re.findall(r"@CUPOLA_(\w+)@", entry)}
    assert named <= places | told, named - places - told


@pytest.mark.parametrize("name", EVENTS)
def test_each_happens_somewhere(name: str) -> None:
    assert any(f"events.{name}" in source for source in SOURCES)


def test_what_is_told_is_printable(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        events.HOST_ERROR.tell(doing="x\x1b[2J\ny", reason=["a\n", "b"])
    assert caplog.messages == ["x\\x1b[2J\\ny: a\\n and 1 more"]

"""Clean paths: one table for every path of a request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupolad.paths import HostPath, SandboxPath

UNCLEAN = [
    "",
    ".",
    "..",
    "a/..",
    "../a",
    "a/../b",
    "./a",
    "a/.",
    "a//b",
    "a/",
    "a\0b",
    "x" * 256,
    "a/" + "x" * 256,
    "é" * 128,
    "a/" * 2048 + "a",
]


@pytest.mark.parametrize("path", [*UNCLEAN, "/a", "/"])
def test_unclean_sandbox_paths(path: str) -> None:
    with pytest.raises(ValueError, match=r"^must "):
        SandboxPath(path)


@pytest.mark.parametrize("path", ["a", *("/" + path for path in UNCLEAN), "//a"])
def test_unclean_host_paths(path: str) -> None:
    with pytest.raises(ValueError, match=r"^must "):
        HostPath(path)


@pytest.mark.parametrize(
    "path", ["a", "a/b", "...", "-rf", "a b", "x" * 255, "é", "a/" * 2047 + "a"]
)
def test_clean_paths(path: str) -> None:
    assert SandboxPath(path) == path
    assert HostPath("/" + path) == "/" + path


@pytest.mark.parametrize(
    ("path", "other", "at_or_below", "overlaps"),
    [
        ("a", "a", True, True),
        ("a/b", "a", True, True),
        ("a", "a/b", False, True),
        ("ab", "a", False, False),
        ("a", "ab", False, False),
        ("a/b", "a/c", False, False),
        ("b/a", "a", False, False),
    ],
)
def test_relations(path: str, other: str, at_or_below: bool, overlaps: bool) -> None:
    sandbox = SandboxPath(path)
    assert sandbox.is_at_or_below(other) is at_or_below
    assert sandbox.is_below(other) is (at_or_below and path != other)
    assert sandbox.overlaps(other) is overlaps


components = st.sampled_from(["a", "b", "ab", "c"])


@given(st.lists(components, min_size=1), st.lists(components, min_size=1))
def test_relations_are_those_of_the_components(one: list[str], two: list[str]) -> None:
    path, other = SandboxPath("/".join(one)), "/".join(two)
    assert path.is_at_or_below(other) == (one[: len(two)] == two)
    if path.is_at_or_below(other):
        assert path.relative_to(other) == "/".join(one[len(two) :])

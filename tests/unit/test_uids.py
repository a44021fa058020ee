"""Leases of uid ranges: disjoint, never root's, given back."""

from __future__ import annotations

import contextlib

import pytest

from cupolad.host.uids import RANGE, UidPool, UidRange

BASE = 0x34000000


def test_a_range_maps_each_container_id_once() -> None:
    leased = UidRange(BASE)
    assert leased.host(0) == BASE
    assert leased.host(RANGE - 1) == BASE + RANGE - 1
    assert BASE + RANGE - 1 in leased
    assert BASE + RANGE not in leased
    assert BASE - 1 not in leased


@pytest.mark.parametrize("outside", [-1, RANGE])
def test_ids_outside_of_a_range_are_refused(outside: int) -> None:
    with pytest.raises(ValueError, match="between 0 and 65535"):
        UidRange(BASE).host(outside)


@pytest.mark.parametrize(
    ("base", "count"),
    [(0, RANGE), (BASE + 1, RANGE), (BASE, RANGE - 1), (2**31 - RANGE, 2 * RANGE), (1000, RANGE)],
)
def test_a_pool_that_would_hold_real_users_is_refused(base: int, count: int) -> None:
    with pytest.raises(ValueError, match="a pool of ids"):
        UidPool(base, count)


def test_leases_are_disjoint_and_come_back() -> None:
    pool = UidPool(BASE, 3 * RANGE + 5)
    with contextlib.ExitStack() as stack:
        leases = {stack.enter_context(pool.lease()).base for _ in range(3)}
        assert leases == {BASE, BASE + RANGE, BASE + 2 * RANGE}
        assert pool.free == 0
        with pytest.raises(IndexError):
            stack.enter_context(pool.lease())
    assert pool.free == pool.size == 3


def test_the_longest_unused_range_is_next() -> None:
    pool = UidPool(BASE, 2 * RANGE)
    bases = []
    for _ in range(4):
        with pool.lease() as leased:
            bases.append(leased.base - BASE)
    assert bases == [0, RANGE, 0, RANGE]


def test_a_range_comes_back_after_an_error() -> None:
    pool = UidPool(BASE, RANGE)
    with pytest.raises(RuntimeError), pool.lease():
        raise RuntimeError
    assert pool.free == 1


def test_a_range_that_may_still_be_in_use_does_not_come_back() -> None:
    pool = UidPool(BASE, 2 * RANGE)
    with pytest.raises(KeyError), pool.lease(unless=KeyError):
        raise KeyError
    assert pool.free == 1

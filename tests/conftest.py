"""What all tests share: privileges that are probed, and failures instead of skips where they must be.

With CUPOLA_REQUIRE_ALL=1 a test whose privilege is missing fails: nothing is skipped in CI.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

REQUIRE_ALL = os.environ.get("CUPOLA_REQUIRE_ALL") == "1"

settings.register_profile("ci", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci")


def _fuse_missing() -> str | None:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse cannot be opened: {error.strerror}"
    return None


_PROBES: dict[str, Callable[[], str | None]] = {
    "root": lambda: None if os.geteuid() == 0 else "not root",
    "fuse": _fuse_missing,
    "runc": lambda: None if shutil.which("runc") else "runc is not installed",
    "uml": lambda: None if shutil.which("linux.uml") else "user-mode-linux is not installed",
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or fail, a test whose privilege is missing."""
    for mark, probe in _PROBES.items():
        if item.get_closest_marker(mark) and (missing := probe()):
            if REQUIRE_ALL:
                pytest.fail(f"needs {mark}: {missing}", pytrace=False)
            pytest.skip(f"needs {mark}: {missing}")

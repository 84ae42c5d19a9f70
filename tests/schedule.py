"""Which tests run together and which begin early, where several processes share the suite."""

from collections.abc import Sequence

import pytest
from xdist.scheduler import LoadScopeScheduling

TOGETHER = (
    "booted/",
    "test_crash_points.py",
    "test_fuzz.py",
    "test_kuberay.py",
    "test_monitoring.py",
    "test_networks.py",
    "test_object_store.py",
    "test_poison.py",
    "test_python.py",
    "test_sheet.py",
)
"""Tests that share what is made once for them, a machine or a daemon: they go to one process."""

EARLY = (
    "booted/",
    "test_cluster.py",
    "chaos/",
    "nfs/",
    "container/",
    "test_resources.py",
    "test_documentation.py",
    "test_crash_points.py",
    "test_networks.py",
    "test_poison.py",
)
"""Tests that take minutes, or do together: one of them at the very end would be waited for by all others."""


class Schedule(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each process that is idle the next test, or the next of those that go together."""

    def _split_scope(self, nodeid: str) -> str:
        return next((part for part in TOGETHER if part in nodeid), nodeid)


def early_first(items: list[pytest.Item]) -> None:
    """Otherwise they stay in the order they are in, which is a random one."""
    items.sort(key=lambda item: next((n for n, part in enumerate(EARLY) if part in item.nodeid), len(EARLY)))


def check_together(items: Sequence[pytest.Item]) -> None:
    """What a module makes for all of its tests would be made anew in each process.

    Raises:
        UsageError: a file does that, and is not in `TOGETHER`.
    """
    for item in items:
        found = getattr(item, "_fixtureinfo", None)
        definitions = found.name2fixturedefs.values() if found else ()
        shares = any(each.scope == "module" for several in definitions for each in several)
        if shares and not any(part in item.nodeid for part in TOGETHER):
            raise pytest.UsageError(f"{item.path.name} has fixtures of scope module: name it in TOGETHER")

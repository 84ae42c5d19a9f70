"""Which tests run together and which begin early, where several processes share the suite."""

from collections.abc import Sequence
from itertools import zip_longest

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

BUSY = (
    "test_cluster.py",
    "chaos/test_chaos.py",
    "container/",
    "test_documentation.py",
    "test_networks.py",
    "test_batch.py",
)
"""Tests that keep a core or two at work for long."""

WAITING = (
    "booted/",
    "nfs/",
    "test_resources.py",
    "test_faults.py",
    "test_crash_points.py",
    "test_poison.py",
    "test_inbox_faults.py",
    "test_disk.py",
    "test_security.py",
    "test_health_checks.py",
)
"""Tests that take as long, and most of the time wait."""


class Schedule(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each process that is idle the next test, or the next of those that go together."""

    def _split_scope(self, nodeid: str) -> str:
        return _scope_of(nodeid)


def _scope_of(nodeid: str) -> str:
    return next((part for part in TOGETHER if part in nodeid), nodeid)


def long_first(items: list[pytest.Item]) -> None:
    """A long one at the very end would be waited for by all others; and of the long ones one that keeps cores
    at work goes with one that waits. Otherwise they stay in the order they are in, which is a random one."""
    busy, waiting = _scopes(items, BUSY), _scopes(items, WAITING)
    pairs = zip_longest(busy, waiting)
    order = {scope: place for place, scope in enumerate(scope for pair in pairs for scope in pair if scope)}
    items.sort(key=lambda item: order.get(_scope_of(item.nodeid), len(order)))


def _scopes(items: list[pytest.Item], parts: Sequence[str]) -> list[str]:
    """What is given out at a time of the files that are named so, in the order of these names."""
    found = {part: [item.nodeid for item in items if part in item.nodeid] for part in parts}
    return list(dict.fromkeys(_scope_of(nodeid) for nodeids in found.values() for nodeid in nodeids))


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

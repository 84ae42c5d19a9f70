"""A real Ray cluster of one or two nodes on this machine, its processes, and its end without a trace."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.update(RAY_idle_worker_killing_time_threshold_ms="60000", RAY_worker_niceness="0")  # docs/ray.md
cluster_utils: Any = pytest.importorskip("ray.cluster_utils", reason="needs pip install 'maskdrop[ray]'")

_FOLDER = "RAY_TMPDIR"

STORE = 150 * 2**20
"""Bytes of object store for each of a node's processors: so few that carelessness would spill."""

_SPARE = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
"""Servers of Ray's that nobody here asks anything: each is a Python process to start."""


class Nodes:
    """One node or two; the second one may be killed."""

    def __init__(self, folder: Path, cpus: tuple[int, ...], store: int, gpus: tuple[int, ...]) -> None:
        self._folder = folder
        resources: list[dict[str, Any]] = [
            {"num_cpus": count, "object_store_memory": store * count} for count in cpus
        ]
        for node, count in zip(resources, gpus, strict=False):
            node["num_gpus"] = count
        first, *more = resources
        head = {**first, **_SPARE, "temp_dir": str(folder)}
        self._cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
        self._others = [self._cluster.add_node(**node, include_log_monitor=False) for node in more]

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def actors(self, second: bool) -> list[psutil.Process]:
        """The inference actors' processes on the second node, or on the first."""
        return self.workers("MapWorker", second)

    def workers(self, kind: str, second: bool = False) -> list[psutil.Process]:
        """Processes of actors of a class on the second node, or on the first."""
        node = self._others[0] if second else self._cluster.head_node
        (raylet,) = node.all_processes["raylet"]
        found = []
        for process in psutil.Process(raylet.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name().startswith(f"ray::{kind}") or kind in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def spills(self) -> list[str]:
        """What the nodes' own logs tell of objects that had to be put on disk."""
        logs = self._folder.glob("session_2*/logs/raylet*.out")
        lines = [line for log in logs for line in log.read_text().splitlines()]
        assert lines
        return [line for line in lines if ":Spilled " in line]

    def kill_second(self) -> None:
        """As if its plug were pulled."""
        self._cluster.remove_node(self._others[0], allow_graceful=False)

    def end(self) -> None:
        self._cluster.shutdown()


@contextlib.contextmanager
def ray_nodes(*cpus: int, store: int = STORE, gpus: tuple[int, ...] = ()) -> Iterator[Nodes]:
    """A cluster of a node for each of these numbers of processors, gone at the end.

    Args:
        store: bytes of object store for each processor.
        gpus: how many each node says it has; Ray believes it.
    """
    folder = Path(tempfile.mkdtemp(prefix="maskdrop-nodes-", dir="/tmp"))  # sockets' paths are short
    nodes, before = None, os.environ.get(_FOLDER)
    os.environ[_FOLDER] = str(folder)  # where Ray notes a cluster's address
    (folder / "ray").mkdir()
    try:
        nodes = Nodes(folder, cpus, store, gpus)
        yield nodes
    finally:
        if nodes is not None:
            nodes.end()
        os.environ.pop(_FOLDER)
        if before is not None:
            os.environ[_FOLDER] = before
        shutil.rmtree(folder, ignore_errors=True)

"""What tests share: tiny weights, drawn pictures, and the real daemon as a process."""

import gc
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before PyTorch is imported, here and where daemons are forked: with several tests at a time, threads that
# wait for each other would spin on processors that the others need. Workers give themselves the same.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import pytest
from hypothesis import HealthCheck, settings

from batch_job import Job
from running import Daemon, Rooms
from schedule import Schedule, check_together, long_first

gc.disable()  # while tests and what they import are imported: none of it becomes garbage
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # where a test itself imports ONNX Runtime
for word in (
    "COLUMNS",
    "LINES",
    "FORCE_COLOR",
    "NO_COLOR",
    "CLICOLOR_FORCE",
    "TTY_COMPATIBLE",
    "TTY_INTERACTIVE",
):
    os.environ.pop(word, None)  # tests say themselves how wide and how coloured it is to be

settings.register_profile(
    "maskdrop", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("maskdrop")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    check_together(items)
    yield
    long_first(items)  # after pytest-randomly has shuffled


def pytest_collection_finish() -> None:
    gc.freeze()  # nor is it looked through again
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Schedule:
    gc.enable()  # who gives out tests collects none
    return Schedule(config, log)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a narrow network: as real as any to the daemon, and quick."""
    # Imports torch, for which the process that only gives out tests has no use.
    from weights_for_tests import write_tiny_weights

    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    write_tiny_weights(path)
    return path


@pytest.fixture(scope="session")
def faces() -> list[Path]:
    """Photographs of real faces, where MASKDROP_FACES or ../shared/faces has them; else none."""
    beside = Path(__file__).parent.parent.parent / "shared" / "faces"
    folder = Path(os.environ.get("MASKDROP_FACES", beside))
    return sorted((folder / "images").glob("*.jpg"))


@pytest.fixture
def rooms(tmp_path: Path) -> Rooms:
    """Empty folders for one daemon."""
    return Rooms.make(tmp_path)


@pytest.fixture
def start(rooms: Rooms, tiny_weights: Path) -> Iterator[Callable[..., Daemon]]:
    """Starts daemons on the rooms, with tiny weights; whatever still runs at the end is killed."""
    started: list[Daemon] = []

    def start_daemon(*arguments: str, settings: str = "", **options: object) -> Daemon:
        daemon = Daemon(rooms, tiny_weights, settings, arguments, options)
        started.append(daemon)
        return daemon

    yield start_daemon
    for daemon in started:
        daemon.destroy()


@pytest.fixture
def job(tmp_path: Path, tiny_weights: Path) -> Iterator[Job]:
    """A folder for a batch, empty; at the end no temporary file may be left."""
    job = Job(tmp_path, tiny_weights)
    job.source.mkdir()
    yield job
    assert not job.temporary()


@pytest.fixture
def mounted() -> Iterator[Callable[..., None]]:
    """Mounts, as mount(8) does, until the test ends; skips it where that can't be done."""
    places: list[str] = []

    def mount(*arguments: str) -> None:
        if subprocess.run(["mount", *arguments], capture_output=True).returncode != 0:
            pytest.skip("mounting needs root")
        places.append(arguments[-1])

    yield mount
    for place in reversed(places):
        subprocess.run(["umount", "--lazy", place], capture_output=True)

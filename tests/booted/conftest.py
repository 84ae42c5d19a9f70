"""A machine, booted once for the tests in one process, and the service installed in it."""

import importlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from booted import interpreter
from booted.cgroup import CannotBoot
from booted.isolated import why_not_isolated
from booted.machine import PROGRAMS, Machine, booted
from booted.service import WEIGHTS, Service
from booted.tree import BOOTABLE, TreeMissing, debian_tree


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    try:
        tree = debian_tree(*BOOTABLE, *interpreter.debian_packages())
        with booted(tree, interpreter.bindings()) as machine:
            yield machine
    except (CannotBoot, TreeMissing) as error:
        pytest.skip(str(error))


def why_not() -> str | None:
    """Why no machine can be booted here; None if one can."""
    if os.geteuid() != 0:
        return "booting a machine needs root"
    missing = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
    if missing:
        return f"booting a machine needs more: apt-get install {' '.join(missing)}"
    try:
        importlib.import_module("systemd.daemon")  # the folder of units is a package "systemd" too
    except ImportError:
        return "the unit needs systemd-python: apt-get install libsystemd-dev, pip install systemd-python"
    return why_not_isolated()


@pytest.fixture(scope="session")
def installed(machine: Machine, tiny_weights: Path) -> Service:
    """The service, installed, configured to be quick, and started."""
    service = Service(machine)
    service.set_up_venv()
    service.install()
    machine.write(WEIGHTS, tiny_weights.read_bytes())
    service.make_quick()
    machine.run("systemctl", "enable", "--now", service.unit)
    return service


@pytest.fixture
def service(installed: Service) -> Iterator[Service]:
    """The service, running; at the end every picture must be where it belongs."""
    installed.put_right()
    installed.wait_running()
    yield installed
    assert installed.show("ActiveState") not in ("inactive", "failed")
    installed.wait_running()
    installed.wait_finished()
    installed.audit(calm=True)

"""maskdrop under a real systemd: a machine of its own is booted, and the service installed in it.

Each test finds the service running and leaves it so, with everything done; after each, every
picture that was ever dropped is looked for.
"""

import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from booted import interpreter
from booted.isolated import why_not_isolated
from booted.machine import PROGRAMS, CannotBoot, Machine, booted
from booted.service import CONFIG, UNIT, WEIGHTS, Service
from booted.tree import TreeMissing, debian_tree
from drawing import face_bytes
from waiting import wait_for

pytestmark = pytest.mark.timeout(900)  # the first run makes the tree


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    try:
        with booted(debian_tree(*interpreter.debian_packages()), interpreter.bindings()) as machine:
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
    return why_not_isolated()


@pytest.fixture(scope="module")
def installed(machine: Machine, tiny_weights: Path) -> Service:
    """The service, installed, configured to be quick, and started."""
    service = Service(machine)
    service.set_up_venv()
    service.install()
    machine.write(WEIGHTS, tiny_weights.read_bytes())
    machine.write(CONFIG, service.small())
    machine.write("/etc/systemd/system/maskdrop.service.d/tmp.conf", "[Service]\nType=exec\nWatchdogSec=0\n")
    machine.write("/etc/systemd/system/maskdrop@.service.d/tmp.conf", "[Service]\nType=exec\nWatchdogSec=0\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "enable", "--now", UNIT)
    return service


@pytest.fixture
def service(installed: Service) -> Iterator[Service]:
    """The service, running; at the end every picture must be where it belongs."""
    installed.wait_running()
    yield installed
    installed.wait_running()
    installed.wait_finished()
    installed.audit(calm=True)


def finished(service: Service, name: str) -> bool:
    return name in service.finished()


def drop_many(service: Service, count: int) -> None:
    """New pictures, so that it is at work for a while."""
    for index in range(len(service.dropped), len(service.dropped) + count):
        service.drop(f"{index:04}.jpg", face_bytes(index))


def wait_in_the_middle(service: Service) -> None:
    """Wait until some of what was dropped is done, and some is not."""
    before = len(service.finished())
    wait_for(lambda: len(service.finished()) >= before + 3, "some pictures done")
    assert len(service.waiting()) > 0


def test_pictures_become_results_and_broken_ones_go_to_quarantine(service: Service) -> None:
    drop_many(service, 5)
    service.drop("broken.jpg", b"\xff\xd8\xff\xe0 no picture", good=False)
    service.wait_finished()


def test_installing_again_changes_nothing_and_uninstalling_leaves_pictures_and_what_was_edited(
    service: Service,
) -> None:
    drop_many(service, 2)
    service.wait_finished()
    assert "nothing to do" in service.install()
    service.maskdrop("service", "uninstall")
    service.audit(calm=True)
    assert service.show("LoadState") == "not-found"
    assert service.machine.read(CONFIG).decode() == service.small()
    service.install()
    service.machine.run("systemctl", "enable", "--now", UNIT)


def test_as_shipped_with_the_embedded_weights(service: Service) -> None:
    service.machine.write(CONFIG, service.shipped("etc/maskdrop.toml"))
    service.machine.run("systemctl", "restart", UNIT)
    service.wait_running()
    drop_many(service, 2)
    service.wait_finished()
    service.machine.write(CONFIG, service.small())
    service.machine.run("systemctl", "restart", UNIT)


def test_stopping_in_mid_load_drains_and_the_next_start_goes_on(service: Service) -> None:
    drop_many(service, 120)
    wait_in_the_middle(service)
    service.stop()
    assert service.show("ActiveState") == "inactive"
    assert service.show("Result") == "success"
    assert service.show("ExecMainStatus") == "0"
    left = service.audit(calm=False).inbox
    assert left > 0
    service.start()
    service.wait_finished()


def test_the_main_process_killed_is_started_again(service: Service) -> None:
    before, restarts = service.show("MainPID"), int(service.show("NRestarts"))
    drop_many(service, 60)
    wait_in_the_middle(service)
    service.signal("KILL")
    wait_for(lambda: service.show("MainPID") not in (before, "0"), "another main process")
    service.wait_running()
    service.wait_finished()
    assert int(service.show("NRestarts")) == restarts + 1


def test_a_copy_by_another_user_that_began_before_the_start_is_not_taken_half(service: Service) -> None:
    """No event told of its beginning, so only a lease can tell, and for that the unit needs CAP_LEASE."""
    machine, content = service.machine, face_bytes(1000, width=700, height=900)
    machine.write("/srv/first", content[:20_000])
    machine.write("/srv/rest", content[20_000:])
    copy = "{ cat /srv/first; until [ -e /run/go-on ]; do sleep 0.1; done; cat /srv/rest; }"
    name = "slow.jpg"
    service.expect(name, content)
    service.stop()
    machine.run("useradd", "--groups", "maskdrop", "anna")
    machine.run(
        *("systemd-run", "--unit=slow-copy", "--uid=anna"),
        *("sh", "-c", f"{copy} > /var/lib/maskdrop/inbox/{name}"),
    )
    wait_for(lambda: name in service.waiting(), "the beginning of the copy")
    service.start()
    for index in range(3):  # each dropped after the last is done, so many settle times later
        beside = f"beside-{index}.jpg"
        service.drop(beside, face_bytes(1001 + index))
        wait_for(partial(finished, service, beside), "a picture dropped later")
    assert name in service.waiting()
    machine.write("/run/go-on", "")

"""maskdrop under a real systemd: a machine of its own is booted, and the service installed in it.

Each test finds the service running and leaves it so, with everything done; after each, every
picture that was ever dropped is looked for.
"""

import re
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from booted.service import INSTANCE, Service
from drawing import face_bytes
from maskdrop.events import Event
from waiting import wait_for

CAP_LEASE = 28
"""capability.h; the only one left to the service."""

pytestmark = pytest.mark.timeout(900)  # the first run makes the tree


def workers(service: Service) -> list[int]:
    """Process numbers of the workers, in the machine."""
    return [worker["pid"] for worker in service.health()["workers"]]


def folders_of(instance: str) -> set[str]:
    """Every folder that an instance's workers may write in."""
    rooms = ("", "/inbox", "/outbox", "/archive", "/quarantine")
    own = {f"/var/lib/maskdrop{instance}{room}" for room in rooms}
    own |= {f"/var/log/maskdrop{instance}", f"/run/maskdrop{instance}"}
    return own | {"/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue"}


def savers(health: dict[str, Any]) -> int:
    """Workers of the last stage that can be given pictures."""
    return sum(worker["stage"] == "save" and worker["ready"] for worker in health["workers"])


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


def test_pictures_and_broken_files_are_told_to_the_journal_with_fields(service: Service) -> None:
    before = len(service.dropped)
    drop_many(service, 3)
    broken = f"broken-{before}.jpg"
    service.drop(broken, b"\xff\xd8\xff\xe0 no picture", good=False)
    service.wait_finished()
    told = {name: service.journal(f"MASKDROP_PICTURE={name}") for name in service.dropped[before:]}
    assert {name: len(entries) for name, entries in told.items()} == dict.fromkeys(told, 1)
    for name, (entry,) in told.items():
        good = name != broken
        assert entry["MASKDROP_RESULT"] == ("saved" if good else "quarantined")
        assert entry["MASKDROP_STAGE"] == ("save" if good else "preprocess")
        assert float(entry["MASKDROP_MS"]) > 0
        assert entry["PRIORITY"] == ("6" if good else "4")
        assert entry["MESSAGE_ID"] == (Event.SAVED if good else Event.QUARANTINED).value
        assert entry["SYSLOG_IDENTIFIER"] == "maskdrop"
        assert name in entry["MESSAGE"]
    explained = service.machine.run("journalctl", "--catalog", "--no-pager", f"MASKDROP_PICTURE={broken}")
    assert f"{broken} can't be processed" in explained


def test_the_journal_commands_of_the_documentation_find_what_they_say(service: Service) -> None:
    service.drop("told.jpg", face_bytes(9_007))
    service.drop("told-broken.jpg", b"\xff\xd8\xff\xe0 no picture", good=False)
    service.wait_finished()
    lines = (Path(__file__).parents[2] / "docs" / "service.md").read_text().splitlines()
    commands = [line for line in lines if line.startswith("journalctl ") and "-t maskdrop" in line]
    assert len(commands) >= 4
    for command in commands:
        search, _, rest = command.partition(" | ")
        found = service.machine.run("sh", "-c", search)
        if "MASKDROP_EVENT=worker_died" not in search:
            assert "told" in found, command
        if rest and shutil.which("jq"):
            answer = subprocess.run(
                ["sh", "-c", rest], input=found, capture_output=True, text=True, check=True
            )
            assert answer.stdout.strip() not in ("", "null"), command


def test_status_shows_a_line_for_people(service: Service) -> None:
    def at_work() -> re.Match[str] | None:
        drop_many(service, 10)
        return re.search(r'Status: "running, [0-9.]+ pictures/s, backlog [1-9][0-9]*"', service.status())

    wait_for(at_work, "the status line of a daemon at work")
    service.wait_finished()
    idle = "running, [0-9.]+ pictures/s, backlog 0"
    wait_for(lambda: re.fullmatch(idle, service.show("StatusText")), "the status line of an idle one")


def test_a_reload_in_mid_load_takes_up_the_new_configuration(service: Service) -> None:
    before = service.show("MainPID")
    drop_many(service, 40)
    wait_in_the_middle(service)
    service.configure(save="2")
    service.reload()
    service.wait_health(lambda h: savers(h) == 2, "two workers that save")
    service.wait_finished()
    assert service.show("MainPID") == before
    service.configure()
    service.reload()
    service.wait_health(lambda h: savers(h) == 1, "one worker that saves")


def test_a_bad_configuration_is_refused_by_a_reload_and_ends_a_start_for_good(service: Service) -> None:
    before = service.show("MainPID")
    service.configure(quality="950")
    service.reload()
    refused = wait_for(
        lambda: service.journal(f"MESSAGE_ID={Event.RELOAD_REFUSED.value}"), "a refusal in the journal"
    )
    assert "quality" in refused[-1]["MESSAGE"]
    assert refused[-1]["PRIORITY"] == "3"
    drop_many(service, 3)
    service.wait_finished()
    assert service.show("MainPID") == before

    restarts = service.show("NRestarts")
    assert service.machine.attempt("systemctl", "restart", service.unit).returncode != 0
    assert service.show("ActiveState") == "failed"
    assert service.show("ExecMainStatus") == "78"
    assert service.show("NRestarts") in (restarts, "0")  # asking for a restart begins the count anew
    assert "quality" in service.status()
    service.configure()
    service.start()


def test_workers_can_write_in_few_folders_run_nothing_there_and_reach_no_network(service: Service) -> None:
    machine = service.machine
    expected = folders_of("")
    for pid in workers(service):
        status = machine.read(f"/proc/{pid}/status").decode()
        assert "NoNewPrivs:\t1\n" in status
        assert "Seccomp:\t2\n" in status
        assert f"CapEff:\t{1 << CAP_LEASE:016x}\n" in status
        assert f"CapBnd:\t{1 << CAP_LEASE:016x}\n" in status
        devices = machine.read(f"/proc/{pid}/net/dev").decode().splitlines()[2:]
        assert [line.split(":")[0].strip() for line in devices] == ["lo"]
        # Instances' folders lie within; an instance that ran leaves some more of them.
        found = {folder for folder in service.writable(pid) if f"/{INSTANCE}" not in folder}
        assert {folder for folder in found if "/passports" not in folder} == expected
        for folder in expected - {"/dev/mqueue"}:
            program = f"{folder}/.program"  # which the inbox passes over
            assert service.as_worker(pid, "cp", "/bin/true", program) == ""
            assert "Permission denied" in service.as_worker(pid, program)
            assert service.as_worker(pid, "rm", program) == ""


def test_installing_again_changes_nothing_and_uninstalling_leaves_pictures_and_what_was_edited(
    service: Service,
) -> None:
    drop_many(service, 2)
    service.wait_finished()
    assert "nothing to do" in service.install()
    service.maskdrop("service", "uninstall")
    service.audit(calm=True)
    assert service.show("LoadState") == "not-found"
    assert service.machine.read(service.config).decode() == service.quick()
    service.install()
    service.machine.run("systemctl", "enable", "--now", service.unit)


def test_an_instance_works_beside_it_in_folders_of_its_own(service: Service) -> None:
    other = Service(service.machine, INSTANCE)
    other.make_quick()
    service.machine.run("systemctl", "enable", "--now", other.unit)
    other.wait_running()
    drop_many(service, 3)
    drop_many(other, 3)
    other.wait_finished()
    assert [other.writable(pid) for pid in workers(other)] == [folders_of("/other")] * 3
    service.machine.run("systemctl", "disable", "--now", other.unit)
    assert other.show("Result") == "success"
    other.audit(calm=True)


def test_as_installed_with_the_embedded_weights(service: Service) -> None:
    service.machine.write(service.config, service.as_installed)
    service.restart()
    assert not service.health()["model"].startswith("tiny")
    drop_many(service, 2)
    service.wait_finished()
    service.configure()
    service.reload()
    service.wait_health(lambda h: h["model"].startswith("tiny") and savers(h) == 1, "the quick configuration")


def test_stopping_in_mid_load_drains_and_the_next_start_goes_on(service: Service) -> None:
    drop_many(service, 80)
    wait_in_the_middle(service)
    service.stop()
    assert service.show("ActiveState") == "inactive"
    assert service.show("Result") == "success"
    assert service.show("ExecMainStatus") == "0"
    left = service.audit(calm=False).inbox
    assert left > 0
    service.start()
    service.wait_finished()


def test_a_drain_longer_than_systemd_waits_asks_for_more_time(service: Service) -> None:
    drop_in = service.add_drop_in("short-stop", TimeoutStopSec="2")
    service.configure(drain_timeout_s="5.0")
    service.restart()
    drop_many(service, 40)
    wait_in_the_middle(service)
    service.machine.run("sh", "-c", f"kill -STOP {' '.join(map(str, workers(service)))}")
    service.stop()
    # It gave up by itself at 5 s; systemd would have killed it at 2 s, and called that a timeout.
    assert (service.show("Result"), service.show("ExecMainStatus")) == ("exit-code", "1")
    drop_in.unlink()
    service.configure()
    service.machine.run("systemctl", "daemon-reload")
    service.start()
    service.wait_finished()


def test_the_main_process_killed_is_started_again(service: Service) -> None:
    before, restarts = service.show("MainPID"), int(service.show("NRestarts"))
    drop_many(service, 40)
    wait_in_the_middle(service)
    service.signal("KILL")
    wait_for(lambda: service.show("MainPID") not in (before, "0"), "another main process")
    service.wait_running()
    service.wait_finished()
    assert int(service.show("NRestarts")) == restarts + 1


def test_a_main_process_that_hangs_is_killed_by_the_watchdog_and_started_again(service: Service) -> None:
    drop_in = service.add_drop_in("watchdog", WatchdogSec="6", TimeoutAbortSec="1")
    service.restart()
    before, restarts = service.show("MainPID"), int(service.show("NRestarts"))
    fed = service.show("WatchdogTimestampMonotonic")
    wait_for(lambda: service.show("WatchdogTimestampMonotonic") != fed, "the watchdog fed again")
    drop_many(service, 40)
    wait_in_the_middle(service)
    service.signal("STOP")
    wait_for(lambda: service.show("MainPID") not in (before, "0"), "another main process")
    service.wait_running()
    service.wait_finished()
    assert int(service.show("NRestarts")) == restarts + 1
    assert "Watchdog timeout" in service.messages()
    drop_in.unlink()
    service.machine.run("systemctl", "daemon-reload")


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

"""What README and documents tell an administrator to do, done in the booted machine, as they have it."""

import re
import subprocess

import pytest

from booted.service import Service
from documented_elsewhere import commands_for
from drawing import face_bytes
from waiting import wait_for

PASSPORTS = "/var/lib/maskdrop/passports"

pytestmark = pytest.mark.timeout(900)  # the first run makes the tree


def in_the_machine(text: str) -> str:
    """A command as root types it there: no sudo, and the environment's own place for the checkout's."""
    text = re.sub(r"\bsudo ", "", text).replace(".venv/bin/maskdrop", "/opt/maskdrop/bin/maskdrop")
    return f"timeout 3 {text} || test $? = 124" if text.endswith(" -f") else text


def do(service: Service, text: str) -> str:
    shell = f"cd /root; export USER=anna SYSTEMD_PAGER=cat; {in_the_machine(text)}"
    return service.machine.run("bash", "-o", "pipefail", "-c", shell)


def test_a_service_is_installed_fed_and_looked_after_as_documented(
    service: Service, request: pytest.FixtureRequest
) -> None:
    commands = commands_for(request.node.name)
    assert len(commands) >= 8
    machine, content = service.machine, face_bytes(2_000)
    machine.attempt("useradd", "anna")  # another test may have made her
    machine.write("/root/portrait.jpg", content)
    said = {}
    for text in commands:
        if text.startswith("sudo cp "):
            service.expect("portrait.jpg", content)
        said[text] = do(service, text)
        if text.startswith("sudo cp "):
            service.wait_finished()
    assert "run systemctl enable --now maskdrop.service" in said[commands[0]]
    assert "maskdrop" in machine.run("id", "--name", "--groups", "anna").split()
    assert "Active: active (running)" in said["systemctl status maskdrop"]
    assert "portrait.jpg" in said["sudo ls /var/lib/maskdrop/outbox"].split()
    assert "saved portrait.jpg" in said["journalctl -u maskdrop -f"]
    wait_for(lambda: "nothing has changed" in service.messages(), "the configuration that is read again")
    machine.run("userdel", "anna")


def test_an_instance_is_made_as_documented(service: Service, request: pytest.FixtureRequest) -> None:
    """First by `service install`, then by hand, as with the package, which doesn't have that one."""
    commands = commands_for(request.node.name)
    assert len(commands) >= 5
    install, *by_hand = commands
    machine, unit = service.machine, "maskdrop@passports"

    def runs() -> bool:
        active: subprocess.CompletedProcess[str] = machine.attempt("systemctl", "is-active", unit)
        return active.stdout.strip() == "active"

    try:
        do(service, install)
        assert runs()
        machine.run("systemctl", "disable", "--now", unit)
        machine.run("rm", "-r", PASSPORTS, "/etc/maskdrop/passports.toml")
        for text in by_hand:
            do(service, text)
        assert runs()
        (machine.root / PASSPORTS.lstrip("/") / "inbox" / "a.jpg").write_bytes(face_bytes(1))
        archived = machine.root / PASSPORTS.lstrip("/") / "archive" / "a.jpg"
        wait_for(archived.exists, "the instance's picture done")
    finally:
        machine.attempt("systemctl", "disable", "--now", unit)
        machine.attempt("rm", "-r", PASSPORTS, "/etc/maskdrop/passports.toml")
        service.install()  # it remembers the instance: so that others find all as it would have it

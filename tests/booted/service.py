"""maskdrop as a service in a booted machine, installed as an administrator installs it."""

import hashlib
import json
from pathlib import Path
from typing import Any

from booted import interpreter
from booted.machine import Machine
from chaos.auditor import Auditor, Entry, Findings, Places
from waiting import wait_for

UNIT = "maskdrop.service"
INSTANCE = "other"
CONFIG = "/etc/maskdrop.toml"
HEALTH = "/run/maskdrop/health.json"
STATE = "/var/lib/maskdrop"
VENV = "/opt/maskdrop"
WEIGHTS = "/etc/maskdrop/tiny.safetensors"

PROGRAM = f"""#!{VENV}/bin/python
import sys

from maskdrop.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
"""
"""What pip makes of the entry point; processes that it spawns import it too."""

SMALL = {
    "settle_ms = 500": "settle_ms = 100",
    "rescan_s = 30.0": "rescan_s = 2.0",
    '# weights = "/var/lib/maskdrop/79999_iter.pth"': f'weights = "{WEIGHTS}"',
    'inference_threads = "auto"': "inference_threads = 1",
    'locate = "auto"': 'locate = "off"',
    "interval_s = 1.0": "interval_s = 0.2",
}
"""What tests change in the configuration that is shipped: quick, and little of the processor."""


class Service:
    """The service, its folders, and everything that was ever dropped."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        state = machine.root / STATE.lstrip("/")
        self.places = Places(
            state / "inbox", state / "outbox", state / "archive", state / "quarantine", (".jpg",)
        )
        self._auditor = Auditor(self.places)
        self.dropped: list[str] = []

    def set_up_venv(self) -> None:
        """A virtual environment in the machine, which has what this test run's has."""
        machine = self.machine
        libraries = interpreter.add_libraries(machine.root)
        if libraries is not None:
            machine.write("/etc/ld.so.conf.d/python-libraries.conf", f"{libraries}\n")
            machine.run("ldconfig")
        machine.run(interpreter.program(), "-m", "venv", "--without-pip", VENV)
        machine.write(
            f"{interpreter.site_packages(VENV)}/checkout.pth", "\n".join(interpreter.search_path()) + "\n"
        )
        machine.write(f"{VENV}/bin/maskdrop", PROGRAM, 0o755)

    def shipped(self, path: str) -> str:
        """A file of this checkout."""
        return self.machine.read(f"{interpreter.CHECKOUT}/{path}").decode()

    def small(self) -> str:
        """The shipped configuration, made quick."""
        settings = self.shipped("etc/maskdrop.toml")
        for default, quick in SMALL.items():
            assert default in settings, f"etc/maskdrop.toml says {default} no more"
            settings = settings.replace(default, quick)
        return settings

    def maskdrop(self, *arguments: str) -> str:
        """What ``maskdrop`` with these arguments says."""
        return self.machine.run(f"{VENV}/bin/maskdrop", *arguments)

    def install(self) -> str:
        """Put it in place, but don't start it."""
        return self.maskdrop("service", "install", "--instance", INSTANCE)

    def start(self) -> None:
        """Start it, and wait until it says that it is ready."""
        self.machine.run("systemctl", "start", UNIT)
        self.wait_running()

    def stop(self) -> None:
        self.machine.run("systemctl", "stop", UNIT)

    def signal(self, name: str) -> None:
        """Send the main process alone a signal."""
        self.machine.run("systemctl", "kill", "--kill-whom=main", f"--signal={name}", UNIT)

    def show(self, name: str) -> str:
        """One of the unit's properties, as systemd sees it now."""
        return self.machine.run("systemctl", "show", "--value", f"--property={name}", UNIT).strip()

    def status(self) -> str:
        """What ``systemctl status`` prints."""
        return self.machine.attempt("systemctl", "status", "--no-pager", "--full", UNIT).stdout

    def journal(self) -> list[dict[str, Any]]:
        """Every journal entry of the unit and about it."""
        lines = self.machine.run("journalctl", "--unit", UNIT, "--output=json", "--no-pager").splitlines()
        return [json.loads(line) for line in lines]

    def messages(self) -> str:
        return "\n".join(str(entry.get("MESSAGE")) for entry in self.journal())

    def health(self) -> dict[str, Any]:
        """What the health file says, which may be of a process that runs no more."""
        try:
            content: dict[str, Any] = json.loads(self.machine.read(HEALTH))
        except (OSError, ValueError):
            return {}
        return content

    def wait_health(self, condition: Any, what: str) -> dict[str, Any]:
        """The first health file of the present main process that fulfils the condition."""

        def fulfilled() -> dict[str, Any] | None:
            health = self.health()
            well = health and condition(health) and str(health["pid"]) == self.show("MainPID")
            return health if well else None

        try:
            found = wait_for(fulfilled, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.status()}\n{self.messages()[-6000:]}") from None
        assert found is not None
        return found

    def wait_running(self) -> None:
        self.wait_health(lambda health: health["state"] == "running", "state running")

    def drop(self, name: str, content: bytes, good: bool = True) -> None:
        """Put a file into the inbox as a careful program does: under another name, then renamed."""
        self.expect(name, content, good)
        temporary = self.places.inbox / f".{name}.incoming"
        temporary.write_bytes(content)
        temporary.rename(self.places.inbox / name)

    def expect(self, name: str, content: bytes, good: bool = True) -> None:
        """A file that somebody else is about to drop."""
        self._auditor.expect(Entry(name, hashlib.sha256(content).hexdigest(), good))
        self.dropped.append(name)

    def waiting(self) -> list[str]:
        """Pictures in the inbox."""
        return _pictures(self.places.inbox)

    def finished(self) -> list[str]:
        """Pictures in the archive or in quarantine."""
        return sorted(_pictures(self.places.archive) + _pictures(self.places.quarantine))

    def wait_finished(self) -> None:
        """Wait until everything dropped has its result or its reason."""
        wait_for(lambda: len(self.finished()) == len(self.dropped), "an end for every picture")
        self.wait_health(lambda health: health["in_flight"] == 0, "nothing in flight")

    def audit(self, *, calm: bool) -> Findings:
        """Look for every picture there ever was; nothing may be at work."""
        findings = self._auditor.audit(calm=calm)
        assert findings.faults == (), "\n".join(findings.faults)
        return findings


def _pictures(folder: Path) -> list[str]:
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return sorted(path.name for path in paths if not path.name.endswith(".reason.json"))

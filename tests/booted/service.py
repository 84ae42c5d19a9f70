"""maskdrop as a service in a booted machine, installed as an administrator installs it."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

from booted import interpreter
from booted.machine import Machine
from chaos.auditor import Auditor, Entry, Findings, Places
from waiting import wait_for

INSTANCE = "other"
"""Installed beside the service without a name: another inbox."""

WEIGHTS = "/etc/maskdrop/tiny.safetensors"

_VENV = "/opt/maskdrop"

_PROGRAM = f"""#!{_VENV}/bin/python
import sys

from maskdrop.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
"""
"""What pip makes of the entry point; processes that it spawns import it too."""

_QUICK = {
    "settle_ms": "100",
    "rescan_s": "2.0",
    "weights": f'"{WEIGHTS}"',
    "preprocess": "1",
    "save": "1",
    "inference_threads": "1",
    "locate": '"off"',
    "interval_s": "0.2",
}
"""What tests configure otherwise than it is installed: quick, and little of the processor. Workers have
their number: what a busy machine measures of itself may call for more."""


class Service:
    """One service, its folders, and everything that was ever dropped into them.

    Attributes:
        unit: its name for ``systemctl``.
        config: path of its configuration in the machine.
        places: its folders, as seen from here.
        dropped: names of everything that was ever dropped.
    """

    def __init__(self, machine: Machine, instance: str | None = None) -> None:
        self.machine = machine
        self.unit = f"maskdrop@{instance}.service" if instance else "maskdrop.service"
        self.config = f"/etc/maskdrop/{instance}.toml" if instance else "/etc/maskdrop.toml"
        self._run = f"/run/maskdrop/{instance}" if instance else "/run/maskdrop"
        state = machine.root / "var/lib/maskdrop" / (instance or "")
        self.places = Places(
            state / "inbox", state / "outbox", state / "archive", state / "quarantine", (".jpg",)
        )
        self._auditor = Auditor(self.places)
        self.dropped: list[str] = []
        self.as_installed = ""

    def set_up_venv(self) -> None:
        """A virtual environment in the machine, which has what this test run's has."""
        machine = self.machine
        libraries = interpreter.add_libraries(machine.root)
        if libraries is not None:
            machine.write("/etc/ld.so.conf.d/python-libraries.conf", f"{libraries}\n")
            machine.run("ldconfig")
        machine.run(interpreter.program(), "-m", "venv", "--without-pip", _VENV)
        machine.write(
            f"{interpreter.site_packages(_VENV)}/checkout.pth", "\n".join(interpreter.search_path()) + "\n"
        )
        machine.write(f"{_VENV}/bin/maskdrop", _PROGRAM, 0o755)

    def maskdrop(self, *arguments: str) -> str:
        """What ``maskdrop`` with these arguments says."""
        return self.machine.run(f"{_VENV}/bin/maskdrop", *arguments)

    def install(self) -> str:
        """Put everything in place, but don't start it; what that says."""
        return self.maskdrop("service", "install", "--instance", INSTANCE)

    def make_quick(self) -> None:
        """Note how it is configured as installed, and configure it as tests want it."""
        self.as_installed = self.machine.read(self.config).decode()
        self.configure()

    def configure(self, **others: str) -> None:
        """Write the quick configuration, with other values for some keys."""
        self.machine.write(self.config, self.quick(**others))

    def quick(self, **others: str) -> str:
        """The configuration as it was installed, made quick, with other values for some keys."""
        settings = self.as_installed
        for key, value in (_QUICK | others).items():
            settings, found = re.subn(rf"^(# )?{key} = .*$", f"{key} = {value}", settings, flags=re.MULTILINE)
            assert found == 1, f"the configuration has {found} lines for {key}"
        return settings

    def add_drop_in(self, name: str, **settings: str) -> Path:
        """Have systemd use other settings; they stay until the file is removed and systemd reloaded."""
        path = f"/etc/systemd/system/{self.unit}.d/{name}.conf"
        lines = [f"{key}={value}" for key, value in settings.items()]
        self.machine.write(path, "\n".join(["[Service]", *lines, ""]))
        self.machine.run("systemctl", "daemon-reload")
        return self.machine.root / path.lstrip("/")

    def put_right(self) -> None:
        """Undo what a test that failed has left: a drop-in, another configuration, no running service."""
        drop_ins = self.machine.root / f"etc/systemd/system/{self.unit}.d"
        as_it_should = (
            not list(drop_ins.glob("*")) and self.machine.read(self.config).decode() == self.quick()
        )
        if as_it_should and self.show("ActiveState") == "active":
            return
        shutil.rmtree(drop_ins, ignore_errors=True)
        self.install()
        self.configure()
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("systemctl", "restart", self.unit)

    def start(self) -> None:
        """Start it, and wait until it says that it is ready."""
        self.machine.run("systemctl", "start", self.unit)
        self.wait_running()

    def restart(self) -> None:
        self.machine.run("systemctl", "restart", self.unit)
        self.wait_running()

    def reload(self) -> None:
        """Have it read its configuration again; what came of it is told later."""
        self.machine.run("systemctl", "reload", self.unit)

    def stop(self) -> None:
        self.machine.run("systemctl", "stop", self.unit)

    def signal(self, name: str) -> None:
        """Send the main process alone a signal."""
        self.machine.run("systemctl", "kill", "--kill-whom=main", f"--signal={name}", self.unit)

    def show(self, name: str) -> str:
        """One of the unit's properties, as systemd sees it now."""
        return self.machine.run("systemctl", "show", "--value", f"--property={name}", self.unit).strip()

    def status(self) -> str:
        """What ``systemctl status`` prints."""
        return self.machine.attempt("systemctl", "status", "--no-pager", "--full", self.unit).stdout

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Journal entries of the unit and about it, those alone that have such fields."""
        command = ["journalctl", "--unit", self.unit, "--output=json", "--no-pager", *matches]
        return [json.loads(line) for line in self.machine.run(*command).splitlines()]

    def messages(self) -> str:
        return "\n".join(str(entry.get("MESSAGE")) for entry in self.journal())

    def health(self) -> dict[str, Any]:
        """What the health file says, which may be of a process that runs no more."""
        try:
            content: dict[str, Any] = json.loads(self.machine.read(f"{self._run}/health.json"))
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

    def as_worker(self, pid: int, *command: str) -> str:
        """What a command says that sees the files a worker sees, as its user; it may fail."""
        there = ["nsenter", "--target", str(pid), "--mount", "--"]
        there += ["setpriv", "--clear-groups", "--reuid=maskdrop", "--regid=maskdrop", "--"]
        return self.machine.attempt(*there, *command).stdout

    def writable(self, pid: int) -> set[str]:
        """Folders in which a worker can make files, but for hidden ones."""
        pruned = "-path /proc -prune -o -path /opt/python-packages -prune"
        find = f"find / {pruned} -o -type d -writable -print 2>/dev/null"
        return {folder for folder in self.as_worker(pid, "sh", "-c", find).split() if "/." not in folder}

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

"""What is installed, where, whether somebody edited it, and what systemd says of it."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from maskdrop.service.install import NEWER
from maskdrop.service.layout import COMMAND, PACKAGED_UNITS, STATE, USER, config_of, program_of, unit_of
from maskdrop.service.record import Record, digest, read_record
from maskdrop.service.steps import below, user_exists
from maskdrop.systemd import manages


@dataclass(frozen=True)
class Shown:
    """Rows for people, and whether the service is installed at all."""

    installed: bool
    rows: list[tuple[str, str]]


def look(root: Path) -> Shown:
    """Describe the installation below a root folder.
    Raises:
        RecordUnreadable: the record of the installation is damaged.
    """
    record = read_record(root)
    packaged = next((unit for unit in PACKAGED_UNITS if below(root, unit).exists()), None)
    if record:
        rows = [("installed", f"maskdrop {record.version}, by maskdrop service install")]
        rows += [("environment", _environment(root, record))]
        rows += [(str(COMMAND), _state_of_link(root, record))]
        rows += [(name, _state_of_file(root, Path(name), digest)) for name, digest in record.files.items()]
    elif packaged:
        rows = [("installed", "by a package"), (str(packaged), "see dpkg --verify maskdrop")]
        rows += [(str(config_of(None)), _presence(below(root, config_of(None))))]
    else:
        return Shown(False, [("installed", "no; maskdrop service install does it")])
    rows.append(("user", USER if user_exists(root) else f"{USER} is MISSING"))
    rows.append((str(STATE), _presence(below(root, STATE))))
    instances = record.instances if record else []
    rows += [(unit, state) for unit in map(unit_of, [None, *instances]) if (state := _unit_state(root, unit))]
    return Shown(True, rows)


def _environment(root: Path, record: Record) -> str:
    program = program_of(below(root, Path(record.environment)))
    made = ", made by the installation" if record.made_environment else ""
    return f"{record.environment}{made}" + ("" if program.exists() else ", MISSING")


def _state_of_link(root: Path, record: Record) -> str:
    path, program = below(root, COMMAND), program_of(Path(record.environment))
    if not path.is_symlink() and not path.exists():
        return "MISSING"
    leads_there = path.is_symlink() and path.readlink() == program
    return f"leads to {program}" if leads_there else f"not this installation's; type {program}"


def _state_of_file(root: Path, target: Path, installed: str) -> str:
    path = below(root, target)
    if not path.exists():
        return "MISSING"
    state = "as installed" if digest(path.read_bytes()) == installed else "edited"
    newer = path.with_name(path.name + NEWER)
    return f"{state}, a newer one is {target.name}{NEWER}" if newer.exists() else state


def _presence(path: Path) -> str:
    return "there" if path.exists() else "MISSING"


def _unit_state(root: Path, unit: str) -> str | None:
    """What systemd says of a unit; None where it doesn't run, or runs another root."""
    if not manages(root):
        return None
    asked = ["ActiveState", "SubState", "UnitFileState", "StatusText"]
    command = ["systemctl", "show", unit, "--property", ",".join(asked)]
    answer = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    said = dict(line.partition("=")[::2] for line in answer.stdout.splitlines())
    if not said.get("ActiveState"):
        return f"not to be learnt: {answer.stderr.strip()}"
    state = f"{said['ActiveState']} ({said['SubState']}), {said.get('UnitFileState') or 'not enabled'}"
    return f"{state}: {said['StatusText']}" if said.get("StatusText") else state

"""Which files and folders make up the service, and where they go (file-hierarchy(7), systemd.unit(5))."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FILES = Path(__file__).parent / "files"
"""The files of systemd/ and etc/: in a checkout by links, in an installed package as copies."""

USER = "maskdrop"
STATE = Path("/var/lib/maskdrop")
ENVIRONMENT = Path("/opt/maskdrop")
"""The virtual environment that unit files name."""

RECORD = Path("/usr/local/lib/maskdrop/installed.json")
"""Lists what `maskdrop service install` wrote. Only root writes there: the state folder is the service's."""

COMMAND = Path("/usr/local/bin/maskdrop")
"""A link to the environment's program, so that people may type its name (file-hierarchy(7))."""

PACKAGED_UNITS = (
    Path("/usr/lib/systemd/system/maskdrop.service"),
    Path("/lib/systemd/system/maskdrop.service"),
)
"""Where a Debian package has its unit."""

ROOMS = {"inbox": 0o2770, "outbox": 0o2750, "archive": 0o2750, "quarantine": 0o2750}
"""Folders of one service and their permissions: as in systemd/maskdrop.tmpfiles."""

_UNITS = Path("/etc/systemd/system")
_STATE_MODE = 0o750
_INSTANCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]{0,63}")
_OTHERS = frozenset({*ROOMS, "weights"})
"""Names that mean something else in the state folder, and so can't be an instance's."""


@dataclass(frozen=True)
class WantedFile:
    """One file: its absolute path on the system, and what should be in it."""

    target: Path
    content: bytes


@dataclass(frozen=True)
class WantedFolder:
    """One folder of the service's user: its absolute path, and its permissions when it is made."""

    target: Path
    mode: int


def is_instance_name(name: str) -> bool:
    """Whether a name can be an instance's: it becomes part of paths and of the unit's name."""
    return bool(_INSTANCE.fullmatch(name)) and name not in _OTHERS


def wanted_files(environment: Path, instances: Sequence[str]) -> list[WantedFile]:
    """All files of the service that runs from an environment; with instances, a configuration for each."""
    files = [
        WantedFile(_UNITS / name, _unit(name, environment))
        for name in ("maskdrop.service", "maskdrop@.service")
    ]
    for source, target in (
        ("maskdrop.sysusers", "/etc/sysusers.d/maskdrop.conf"),
        ("maskdrop.tmpfiles", "/etc/tmpfiles.d/maskdrop.conf"),
        ("maskdrop.logrotate", "/etc/logrotate.d/maskdrop"),
        ("maskdrop.catalog", "/usr/local/lib/systemd/catalog/maskdrop.catalog"),
    ):
        if (FILES / "systemd" / source).exists():
            files.append(WantedFile(Path(target), (FILES / "systemd" / source).read_bytes()))
    files.append(WantedFile(config_of(None), (FILES / "etc" / "maskdrop.toml").read_bytes()))
    files += [WantedFile(config_of(name), instance_configuration(name)) for name in instances]
    return files


def wanted_folders(instances: Sequence[str]) -> list[WantedFolder]:
    """Folders of the single service, and of each instance, outer ones first."""
    return [*_rooms(STATE), *(folder for name in instances for folder in _instance_rooms(name))]


def config_of(instance: str | None) -> Path:
    """The configuration file that a unit names."""
    return Path("/etc/maskdrop.toml") if instance is None else Path(f"/etc/maskdrop/{instance}.toml")


def program_of(environment: Path) -> Path:
    """The command's file in an environment."""
    return environment / "bin" / "maskdrop"


def unit_of(instance: str | None) -> str:
    """The unit's name."""
    return "maskdrop.service" if instance is None else f"maskdrop@{instance}.service"


def unit_file_of(instance: str | None) -> Path:
    """Where the unit is written; all instances have the same."""
    return _UNITS / ("maskdrop.service" if instance is None else "maskdrop@.service")


def instance_configuration(name: str) -> bytes:
    """The configuration file with every folder below the instance's own."""
    text = (FILES / "etc" / "maskdrop.toml").read_text(encoding="utf-8")
    for folder in ("/var/lib/maskdrop/", "/run/maskdrop/", "/var/log/maskdrop/"):
        text = text.replace(folder, f"{folder}{name}/")
    return text.encode()


def sysusers_line() -> str:
    """The line of systemd/maskdrop.sysusers that makes the user."""
    lines = (FILES / "systemd" / "maskdrop.sysusers").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith("u "))


def _unit(name: str, environment: Path) -> bytes:
    text = (FILES / "systemd" / name).read_text(encoding="utf-8")
    return text.replace(str(program_of(ENVIRONMENT)), str(program_of(environment))).encode()


def _rooms(state: Path) -> Iterator[WantedFolder]:
    yield WantedFolder(state, _STATE_MODE)
    for name, mode in ROOMS.items():
        yield WantedFolder(state / name, mode)


def _instance_rooms(name: str) -> Iterator[WantedFolder]:
    return _rooms(STATE / name)

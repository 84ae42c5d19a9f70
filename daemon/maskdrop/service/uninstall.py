"""The steps that remove the service, and what stays: pictures, and files that somebody edited."""

from collections.abc import Iterator
from pathlib import Path

from maskdrop.service.install import NEWER
from maskdrop.service.layout import COMMAND, RECORD, STATE, program_of, unit_file_of, unit_of
from maskdrop.service.record import Record, digest, read_record
from maskdrop.service.steps import KeepFile, RemoveEnvironment, RemoveFile, RunCommand, Step, below
from maskdrop.systemd import manages


def plan_uninstall(root: Path) -> list[Step]:
    """The steps that undo an installation; none if there is none.

    The state folder with every picture, the user, and files that somebody edited stay.

    Raises:
        RecordUnreadable: the record of the installation is damaged.
    """
    record = read_record(root)
    if record is None:
        return []
    steps: list[Step] = []
    tells_systemd = manages(root)
    if tells_systemd and (units := units_there(root, record)):
        steps.append(RunCommand(("systemctl", "disable", "--now", *units)))
    steps += _file_steps(root, record)
    link = below(root, COMMAND)
    if link.is_symlink() and link.readlink() == program_of(Path(record.environment)):
        steps.append(RemoveFile(COMMAND))
    if tells_systemd:
        steps.append(RunCommand(("systemctl", "daemon-reload")))
    if record.made_environment:
        steps.append(RemoveEnvironment(Path(record.environment)))
    steps.append(RemoveFile(RECORD, and_folder=True))
    if below(root, STATE).exists():
        steps.append(KeepFile(STATE, "pictures are never removed, nor is their owner"))
    return steps


def units_there(root: Path, record: Record) -> list[str]:
    """Units whose files are still there: systemctl fails for others, and the last try may have been
    interrupted after it had removed them."""
    instances = [None, *record.instances]
    return [unit_of(name) for name in instances if below(root, unit_file_of(name)).exists()]


def _file_steps(root: Path, record: Record) -> Iterator[Step]:
    for name, installed in record.files.items():
        target = Path(name)
        path = below(root, target)
        newer = target.with_name(target.name + NEWER)
        if below(root, newer).exists():
            yield RemoveFile(newer)
        if not path.exists():
            continue
        if digest(path.read_bytes()) != installed:
            yield KeepFile(target, "edited")
        else:
            yield RemoveFile(target, and_folder=target.parent == Path("/etc/maskdrop"))

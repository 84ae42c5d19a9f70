"""The steps that install the service, planned from what is there, so that installing twice does no harm."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from maskdrop import __version__
from maskdrop.service import environment as environments
from maskdrop.service.layout import (
    COMMAND,
    ENVIRONMENT,
    PACKAGED_UNITS,
    RECORD,
    WantedFile,
    is_instance_name,
    program_of,
    unit_of,
    wanted_files,
    wanted_folders,
)
from maskdrop.service.record import Record, Verdict, digest, judge, read_record
from maskdrop.service.steps import (
    KeepFile,
    MakeEnvironment,
    MakeFolder,
    MakeUser,
    RunCommand,
    Step,
    WriteFile,
    WriteLink,
    below,
    user_exists,
)
from maskdrop.systemd import manages

NEWER = ".dpkg-dist"
"""Ending of a newer file, put beside an edited one. systemd and logrotate ignore dpkg's endings."""

EDITED = ".dpkg-old"
"""Ending of an edited file, put beside the one that replaced it."""


class CannotInstall(Exception):
    """The service can't be installed as asked; the message says why, and what to do."""


@dataclass(frozen=True)
class Order:
    """What somebody asked for.

    Attributes:
        environment: the virtual environment to run from; None: as last time, or the present one.
        source: what pip installs in the environment, even if maskdrop is there already; None: the checkout
            that this runs from, and only if the environment has to be made or renewed.
        instances: names of inboxes with a service and a configuration of their own.
        force: replace files that somebody edited.
        now: enable and start as well.
    """

    root: Path
    environment: Path | None = None
    source: str | None = None
    instances: Sequence[str] = ()
    force: bool = False
    now: bool = False


def plan_install(order: Order) -> list[Step]:
    """The steps that are needed; none but `KeepFile` if everything is in place.

    Raises:
        CannotInstall: an instance's name or the environment is no good, or a package installed the service.
        RecordUnreadable: the record of the last installation is damaged.
    """
    for name in order.instances:
        if not is_instance_name(name):
            raise CannotInstall(f"{name!r} can't be an instance's name; use letters, digits, _ and . alone")
    record = read_record(order.root)
    packaged = [unit for unit in PACKAGED_UNITS if below(order.root, unit).exists()]
    if packaged and record is None:
        raise CannotInstall(f"{packaged[0]} is there: a package installed the service; remove that first")
    environment = order.environment or _environment_before(record)
    made, steps = _environment_steps(order, environment, record)
    if steps and record is None:
        # After an interruption, the next run must know whether the environment is ours, and that it may be
        # incomplete.
        begun = Record("", str(environment), made, list(order.instances))
        steps.insert(0, WriteFile(RECORD, begun.encoded(), "begun"))
    steps += [MakeUser()] if not user_exists(order.root) else []
    instances = sorted({*order.instances, *(record.instances if record else [])})
    wanted = wanted_files(environment, instances)
    writes = [step for file in wanted for step in _file_steps(file, order, record)]
    steps += writes
    steps += [
        MakeFolder(folder.target, folder.mode)
        for folder in wanted_folders(instances)
        if not below(order.root, folder.target).exists()
    ]
    steps += _link_steps(order.root, program_of(environment), record)
    kept = {step.target for step in writes if isinstance(step, KeepFile)}
    files = dict(record.files) if record else {}
    files |= {str(file.target): digest(file.content) for file in wanted if file.target not in kept}
    newest = Record(__version__, str(environment), made, instances, files)
    if newest != record:
        steps.append(WriteFile(RECORD, newest.encoded(), "what was installed"))
    return [*steps, *_systemd_steps(order, instances, steps)]


def _environment_before(record: Record | None) -> Path:
    return Path(record.environment) if record else environments.present_environment()


def _environment_steps(order: Order, environment: Path, record: Record | None) -> tuple[bool, list[Step]]:
    """Whether an installation made or makes the environment, and the steps that make it."""
    if any(character in str(environment) for character in " \t\n%\"'\\$"):
        raise CannotInstall(f"{environment}: unit files can't name that; choose a path of plain characters")
    made_before = record is not None and record.made_environment and record.environment == str(environment)
    there = below(order.root, environment)
    if program_of(there).exists():
        reason = environments.why_unusable(environment) if order.root == Path("/") else None
        if reason and not made_before:
            remedy = f"let the service have its own: --environment {ENVIRONMENT}"
            raise CannotInstall(f"{environment}: the service can't run from there: {reason}; {remedy}")
        outdated = made_before and (reason or (record is not None and record.version != __version__))
        if not outdated and order.source is None:
            return made_before, []
    elif order.environment is None and not made_before:
        raise CannotInstall(f"there is no {program_of(environment)}; name an environment with --environment")
    if environment == environments.present_environment() and environments.checkout() is None:
        problem = "this very maskdrop runs from there, and would put its own, older units beside the new code"
        remedy = "run the new one: in a checkout, make install, then sudo .venv/bin/maskdrop service install"
        raise CannotInstall(f"{environment}: {problem}; {remedy} --source .")
    made = made_before or not program_of(there).exists()
    source = order.source or environments.checkout()
    if source is None:
        raise CannotInstall("this maskdrop has no source folder to install from; name a wheel with --source")
    python = environments.service_python()
    if python is None:
        hidden = f"{sys.base_prefix} is hidden from the service"
        raise CannotInstall(f"{hidden}, and /usr/bin/python3 is not 3.11 or newer; install Debian's python3")
    return made, [MakeEnvironment(environment, str(source), python)]


def _file_steps(file: WantedFile, order: Order, record: Record | None) -> Iterator[Step]:
    path = below(order.root, file.target)
    present = path.read_bytes() if path.exists() else None
    recorded = record.files.get(str(file.target)) if record else None
    verdict = judge(present, file.content, recorded, order.force)
    beside = WantedFile(file.target.with_name(file.target.name + NEWER), file.content)
    match verdict:
        case Verdict.SAME:
            return
        case Verdict.NEW | Verdict.NEWER:
            yield WriteFile(file.target, file.content, verdict.value)
        case Verdict.FORCED:
            yield WriteFile(file.target.with_name(file.target.name + EDITED), present or b"", "edited")
            yield WriteFile(file.target, file.content, verdict.value)
        case Verdict.SETTLED:
            yield KeepFile(file.target, verdict.value)
        case Verdict.EDITED:
            newer = below(order.root, beside.target)
            if not newer.exists() or newer.read_bytes() != beside.content:
                yield WriteFile(beside.target, beside.content, "what would have been installed")
            yield KeepFile(file.target, verdict.value)


def _link_steps(root: Path, program: Path, record: Record | None) -> Iterator[Step]:
    """Steps for the command's link; whatever somebody else put in its place stays."""
    path = below(root, COMMAND)
    leads_to = path.readlink() if path.is_symlink() else None
    if leads_to == program:
        return
    is_free = leads_to is None and not path.exists()
    if is_free or (record is not None and leads_to == program_of(Path(record.environment))):
        yield WriteLink(COMMAND, program)
    else:
        yield KeepFile(COMMAND, f"not this installation's; type {program}")


def _systemd_steps(order: Order, instances: Sequence[str], steps: Sequence[Step]) -> Iterator[Step]:
    """What systemd must be told: nothing if it doesn't run, or doesn't manage this root."""
    if not manages(order.root):
        return
    written = [step.target for step in steps if isinstance(step, WriteFile)]
    if any(target.suffix == ".catalog" for target in written):
        yield RunCommand(("journalctl", "--update-catalog"))
    if any(target.suffix == ".service" for target in written):
        yield RunCommand(("systemctl", "daemon-reload"))
    if written or any(isinstance(step, MakeEnvironment) for step in steps):
        # Drains and restarts the units that run, and no others.
        yield RunCommand(("systemctl", "try-restart", *map(unit_of, [None, *instances])))
    if order.now:
        units = [unit_of(name) for name in order.instances] or [unit_of(None)]
        yield RunCommand(("systemctl", "enable", "--now", *units))

"""Everything a run stands on, checked and reserved before any worker starts: folders, lock, slots."""

import contextlib
import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from maskdrop import log as daemon_log
from maskdrop.config import Settings
from maskdrop.config_file import ConfigurationError, check_weights, fault
from maskdrop.devices import PROBE_S, RELOAD_PROBE_S
from maskdrop.folders import Folders, prepare_folders, refuse_want_of_room
from maskdrop.inbox.lock import InboxLock
from maskdrop.machine.proc import MISSING, REMEDY, has_proc
from maskdrop.supervisor.plan import Plan, make_plan, plan_for
from maskdrop.topology.slots import SharedSlots


@dataclass(frozen=True)
class Premises:
    """What workers are given. Successive premises share lock and slots where they can.

    Attributes:
        as_read: the settings as the file and the command line gave them.
        settings: the same with nothing left open.
    """

    as_read: Settings
    settings: Settings
    folders: Folders
    plan: Plan
    slots: SharedSlots
    lock: InboxLock

    def leave(self, *others: "Premises | None") -> None:
        """Give back slots and lock, unless other premises go on with them."""
        if not any(other is not None and other.slots is self.slots for other in others):
            self.slots.close()
        if not any(other is not None and other.lock is self.lock for other in others):
            self.lock.release()


def take_premises(
    settings: Settings,
    before: Premises | None = None,
    besides: Sequence[Premises] = (),
    prepare: Callable[[Settings], Folders] = prepare_folders,
) -> Premises:
    """Check and reserve.

    Args:
        before: the premises in use; their lock and slots are kept if they fit.
        besides: others that this process has reserved; theirs are kept too.
        prepare: makes and checks the folders.

    Raises:
        ConfigurationError: the daemon can't run as configured.
        InboxHeld: another maskdrop has the inbox, or, if originals are kept, the outbox.
    """
    if not has_proc():
        raise ConfigurationError(MISSING, REMEDY)
    check_weights(settings.model.weights)
    folders = prepare(settings)
    plan = _plan(settings, before)
    reserved = [each for each in (before, *besides) if each is not None]
    with contextlib.ExitStack() as undo:
        lock = next((each.lock for each in reserved if each.folders.inbox == folders.inbox), None)
        if lock is None:
            lock = take_lock(folders)
            undo.callback(lock.release)
        _check_metrics_port(settings, before)
        slots = _slots(plan, settings, reserved)
        if not any(slots is each.slots for each in reserved):
            undo.callback(slots.close)
        set_up_log(settings)
        undo.pop_all()
    return Premises(settings, _resolved(settings, folders, plan), folders, plan, slots, lock)


def set_up_log(settings: Settings) -> None:
    """Log as these settings say from now on.

    Raises:
        ConfigurationError: the log file can't be opened.
    """
    try:
        daemon_log.set_up(settings.log)
    except OSError as error:
        raise fault(
            "log.file",
            settings.log.file,
            f"can't be opened ({error.strerror})",
            "name a file maskdrop may write",
        ) from error


def take_lock(folders: Folders) -> InboxLock:
    """Lock the folder in which only one maskdrop may work at a time.

    Raises:
        NoRoom: the disk is too full for a lock file.
        ConfigurationError: no lock file can be made there.
        InboxHeld: another maskdrop has it.
    """
    kind = "outbox" if folders.keeps else "inbox"
    try:
        return InboxLock.take(folders.locked, kind)
    except OSError as error:
        refuse_want_of_room(f"folders.{kind}", folders.locked, error)
        raise fault(
            f"folders.{kind}",
            folders.locked,
            f"no lock file can be made there ({error.strerror})",
            "let maskdrop write there",
        ) from error


def _plan(settings: Settings, before: Premises | None) -> Plan:
    """A plan for these settings. A device in use is not looked for again: that takes a process that imports
    torch, and the supervisor would stand still meanwhile."""
    if before is not None and before.as_read.model.device == settings.model.device:
        return plan_for(settings, before.plan.devices, before.plan.costs)
    return make_plan(settings, PROBE_S if before is None else RELOAD_PROBE_S)


def _check_metrics_port(settings: Settings, before: Premises | None) -> None:
    port = settings.metrics.port
    if port is not None and (before is None or before.as_read.metrics.port != port):
        from maskdrop.health.metrics import check_port  # here, because most daemons never need the library

        check_port(port)


def _slots(plan: Plan, settings: Settings, reserved: Sequence[Premises]) -> SharedSlots:
    count, side, views = plan.slots, settings.model.input_size, settings.views
    for each in reserved:
        there = each.slots
        if (there.count, there.side, there.views) == (count, side, views):
            return there
    try:
        return SharedSlots(count, side, views)
    except OSError as error:
        size = f"{1 + views} x {side} x {side} x 4 bytes"
        if error.errno == errno.EFBIG:
            problem = f"no file may be as large as so many slots of {size}"
            raise fault("workers.slots", count, problem, "raise the limit (ulimit -f, LimitFSIZE)") from error
        problem = f"there is no memory for so many slots of {size}"
        raise fault("workers.slots", count, problem, "set fewer, or a smaller face.most") from error


def _resolved(settings: Settings, folders: Folders, plan: Plan) -> Settings:
    """Settings with nothing left open, as workers get them."""
    return settings.with_values(
        {
            "folders": {
                "inbox": folders.inbox,
                "outbox": folders.outbox,
                "quarantine": folders.quarantine,
                "archive": folders.archive,
            },
            "workers": {"max_batch": plan.max_batch},
            "health": {"file": settings.health_file},
        }
    )

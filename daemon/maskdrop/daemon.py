"""Starting the daemon: everything that can be wrong is found before any worker is started."""

import logging
import os
from pathlib import Path

from maskdrop import __version__
from maskdrop import log as daemon_log
from maskdrop.config import Settings
from maskdrop.config_file import fault
from maskdrop.folders import Folders, prepare_folders
from maskdrop.inbox.lock import InboxLock
from maskdrop.names import printable
from maskdrop.supervisor.plan import Plan, make_plan
from maskdrop.supervisor.supervisor import Supervisor
from maskdrop.topology.slots import Slots

logger = logging.getLogger("maskdrop")


def run_daemon(settings: Settings) -> int:
    """Check, lock, start, work until told to stop.

    Returns:
        The exit code: 0 drained, 1 cut short, 78 weights of another network.

    Raises:
        ConfigurationError: the daemon can't run as configured.
        InboxHeld: another daemon has the inbox.
    """
    check_weights(settings.model.weights)
    folders = prepare_folders(settings)
    plan = make_plan(settings)
    set_up_log(settings)
    lock = take_lock(folders.inbox)
    try:
        slots = make_slots(plan, settings)
        supervisor = Supervisor(resolved(settings, folders, plan), folders, plan, slots, lock)
        logger.info(
            "maskdrop %s starts, inbox %s, pid %d", __version__, printable(folders.inbox), os.getpid()
        )
        code = supervisor.run()
        logger.info("ended with exit code %d", code)
        return code
    finally:
        lock.release()


def check_weights(weights: Path | None) -> None:
    """That the weights file is there; what is in it, the inference worker finds out."""
    if weights is None:
        return
    try:
        with weights.open("rb"):
            pass
    except OSError as error:
        raise fault(
            "model.weights",
            weights,
            f"can't be read ({error.strerror})",
            "name a weights file, or leave it out",
        ) from error


def set_up_log(settings: Settings) -> None:
    try:
        daemon_log.set_up(settings.log)
    except OSError as error:
        raise fault(
            "log.file",
            settings.log.file,
            f"can't be opened ({error.strerror})",
            "name a file maskdrop may write",
        ) from error


def take_lock(inbox: Path) -> InboxLock:
    try:
        return InboxLock.take(inbox)
    except OSError as error:
        raise fault(
            "folders.inbox",
            inbox,
            f"no lock file can be made there ({error.strerror})",
            "let maskdrop write there",
        ) from error


def make_slots(plan: Plan, settings: Settings) -> Slots:
    side, views = settings.model.input_size, settings.views
    try:
        return Slots(plan.slots, side, views)
    except OSError as error:
        problem = f"there is no memory for so many slots of {1 + views} x {side} x {side} x 4 bytes"
        raise fault("workers.slots", plan.slots, problem, "set fewer, or a smaller face.most") from error


def resolved(settings: Settings, folders: Folders, plan: Plan) -> Settings:
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

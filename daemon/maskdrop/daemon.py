"""Starting the daemon: everything that can be checked without a worker is checked before one starts."""

import logging
import os
from collections.abc import Callable

from maskdrop import __version__
from maskdrop.config import Settings
from maskdrop.exit_codes import EX_CONFIG
from maskdrop.names import printable
from maskdrop.supervisor.errand import watching
from maskdrop.supervisor.premises import take_premises
from maskdrop.supervisor.supervisor import Supervisor
from maskdrop.systemd import BindingMissing, ServiceManager

logger = logging.getLogger("maskdrop")


def run_daemon(settings: Settings, read_again: Callable[[], Settings]) -> int:
    """Check, lock, start, and work until told to stop.

    Args:
        read_again: reads the settings again, on SIGHUP; raises ConfigurationError if they are no good.

    Returns:
        The exit code: 0 drained; 1 cut short; 78 workers can't work as configured, such as with weights of
        another network, or systemd waits for news and systemd-python is missing.

    Raises:
        ConfigurationError: the daemon can't run as configured.
        InboxHeld: another daemon has the inbox.
    """
    premises = take_premises(settings)
    try:
        supervisor = Supervisor(premises, ServiceManager(), watching(read_again))
    except BindingMissing as error:
        premises.leave()
        logger.error("%s", error)
        return EX_CONFIG
    except BaseException:
        premises.leave()
        raise
    try:
        inbox = printable(premises.folders.inbox)
        logger.info("maskdrop %s starts, inbox %s, pid %d", __version__, inbox, os.getpid())
        return supervisor.run()
    finally:
        supervisor.leave()

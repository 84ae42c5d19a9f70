"""A new configuration while the daemon runs: read, checked, and taken up when no worker holds a picture."""

import logging
from collections.abc import Callable
from dataclasses import replace

from maskdrop.config import Settings
from maskdrop.config_file import ConfigurationError
from maskdrop.events import Event
from maskdrop.inbox.lock import InboxHeld
from maskdrop.log import tell
from maskdrop.supervisor.plan import Plan
from maskdrop.supervisor.premises import Premises, set_up_log, take_premises

logger = logging.getLogger("maskdrop")


class Renewal:
    """Owner of the premises: those in use, those to come, and those to go back to.

    The old ones are kept until all workers of the new ones are ready: some faults, such as weights
    of another network, show only when a worker starts.

    Attributes:
        premises: those in use.
        pending: those to be taken up as soon as no worker holds a picture; None if there are none.
    """

    def __init__(self, premises: Premises, read_again: Callable[[], Settings]) -> None:
        self._read_again = read_again
        self._before: Premises | None = None
        self._going_back = False
        self.premises = premises
        self.pending: Premises | None = None

    @property
    def under_way(self) -> bool:
        """Whether a new configuration was read and its workers are not all ready yet."""
        return self.pending is not None or self._before is not None

    @property
    def can_go_back(self) -> bool:
        return self._before is not None

    def request(self) -> None:
        """Read the configuration again. If it is valid and anything changed, it is pending from now on."""
        try:
            settings = self._read_again()
            changed = changes(self.premises.as_read, settings)
            newer = take_premises(settings, self.premises, self._others()) if changed else None
        except (ConfigurationError, InboxHeld) as error:
            self._refuse(str(error))
            return
        except Exception as error:  # whatever is wrong with it, the old one is still good
            self._refuse(f"{type(error).__name__}: {error}")
            return
        if newer is not None:
            self._withdraw(newer)
            self.pending = newer
            message = f"configuration read again: {', '.join(changed)} changed"
            tell(logging.INFO, Event.RELOADED, message, changed=changed)
        else:
            if self.pending is not None and not self._going_back:
                self._withdraw()
                self._log_as_before()
            tell(logging.INFO, Event.RELOADED, "configuration read again: nothing has changed")

    def take_up(self) -> Premises:
        """Switch to the pending premises."""
        assert self.pending is not None
        old, self.premises, self.pending = self.premises, self.pending, None
        if self._going_back or self._before is not None:
            old.leave(self.premises, self._before)
        else:
            self._before = old
        if self._going_back:
            self._log_as_before()
        self._going_back = False
        return self.premises

    def replan(self, plan: Plan) -> None:
        """Plan other numbers of workers on the same premises."""
        self.premises = replace(self.premises, plan=plan)

    def confirm(self) -> bool:
        """All workers are ready, so there is no way back any more. Returns whether there was one."""
        if self._before is None:
            return False
        self._before.leave(self.premises, self.pending)
        self._before = None
        return True

    def go_back(self, why: str) -> None:
        """The new premises turned out to be no good. The old ones are pending again, unless others have been
        requested since."""
        if self.pending is not None:
            message = f"that configuration is not taken: {why}; going on with the one that was read after it"
            tell(logging.ERROR, Event.RELOAD_REFUSED, message)
            return
        self._refuse(why)
        self.pending, self._before, self._going_back = self._before, None, True

    def leave(self) -> None:
        """Give everything back; the daemon ends."""
        self._withdraw()
        if self._before is not None:
            self._before.leave(self.premises)
        self.premises.leave()

    def _others(self) -> list[Premises]:
        """Premises that are reserved besides those in use."""
        return [each for each in (self.pending, self._before) if each is not None]

    def _withdraw(self, newer: Premises | None = None) -> None:
        """Give up the pending premises. If they are the old ones, they are kept to go back to.

        Args:
            newer: the premises to be pending instead.
        """
        if self._going_back:
            self._before, self._going_back = self.pending, False
        elif self.pending is not None:
            self.pending.leave(self.premises, self._before, newer)
        self.pending = None

    def _log_as_before(self) -> None:
        """Log as the premises in use say; if that fails, the log goes on where it goes now."""
        try:
            set_up_log(self.premises.as_read)
        except ConfigurationError as error:
            logger.error("%s", error)

    def _refuse(self, why: str) -> None:
        message = f"the new configuration is not taken: {why}; going on with the old one"
        tell(logging.ERROR, Event.RELOAD_REFUSED, message)


def changes(old: Settings, new: Settings) -> list[str]:
    """What differs, as ``section.key``."""
    before, after = old.model_dump(), new.model_dump()
    return [
        f"{section}.{key}"
        for section, values in after.items()
        for key, value in values.items()
        if before[section][key] != value
    ]

"""What the service manager is told and when: ready, a status line, signs of life, requests for time."""

import logging
import math

from maskdrop.health.file import Health, State
from maskdrop.systemd import ServiceManager
from maskdrop.ticket import Stage

logger = logging.getLogger("maskdrop")

FEEDS_A_PERIOD = 3
"""How often the watchdog is fed within the time it waits; sd_watchdog_enabled(3) advises at least 2."""

STEP_S = 10.0
"""Seconds of time asked for at each step of a start or a drain; the next step comes when half are over."""

END_S = 5.0
"""Seconds asked for beyond the drain's deadline: to end workers and the daemon on a busy machine."""

_UP = frozenset({State.RUNNING, State.DEGRADED})


class Notices:
    """Tells the service manager how the daemon is, and remembers what it told last."""

    def __init__(self, manager: ServiceManager) -> None:
        self._manager = manager
        self._status = ""
        self._told_ready = False
        self._silent: list[Stage] = []
        self.next_feed: float | None = 0.0 if manager.watchdog_s else None
        self.next_extension: float | None = 0.0

    def tell(self, health: Health, renewing: bool) -> None:
        """Tell how the daemon is; called as often as the health file is written.

        Args:
            renewing: whether workers are still being replaced for a new configuration.
        """
        line = status_line(health)
        if not self._told_ready and health.state in _UP and not renewing:
            self._told_ready = True
            self.next_extension = None
            self._manager.ready(line)
        elif line != self._status:
            self._manager.status(line)
        self._status = line

    def is_hungry(self, now: float) -> bool:
        """Whether it is time to feed the watchdog, if there is one."""
        return self.next_feed is not None and now >= self.next_feed

    def feed(self, silent: list[Stage], now: float) -> None:
        """Feed the watchdog, unless a stage is silent that should have answered."""
        self.next_feed = now + (self._manager.watchdog_s or 0.0) / FEEDS_A_PERIOD
        if silent and silent != self._silent:
            names = ", ".join(stage.value for stage in silent)
            logger.error("no answer from %s: the watchdog is not fed any more", names)
        self._silent = silent
        if not silent:
            self._manager.feed_watchdog()

    def reloading(self, now: float) -> None:
        """The configuration is being read again; ready is told again once the workers are."""
        self._manager.reloading()
        self._told_ready = False
        self.next_extension = now

    def stopping(self, drain_deadline: float, now: float) -> None:
        """The end has begun, with a drain until this deadline at most."""
        self._manager.stopping()
        self.next_extension = now
        self.ask_for_time(drain_deadline, now)

    def ask_for_time(self, drain_deadline: float | None, now: float) -> None:
        """Ask for more time if it is due: until ready is told, and for a drain, but never beyond the time
        that the drain and the end may take.

        Args:
            drain_deadline: None before the end has begun; then there is no limit, because the supervisor
                ends workers that start too slowly.
        """
        if self.next_extension is None or now < self.next_extension:
            return
        left = math.inf if drain_deadline is None else max(0.0, drain_deadline - now)
        self.next_extension = now + STEP_S / 2 if left > STEP_S / 2 else None
        self._manager.extend_timeout(min(STEP_S, left + END_S))


def status_line(health: Health) -> str:
    """The daemon's state, with the reason if there is one: ``running, 12.3 pictures/s, backlog 40``."""
    parts = [health.state.value + (f" ({health.reason})" if health.reason else "")]
    if health.state in _UP:
        parts.append(f"{health.throughput_per_s:.1f} pictures/s")
    if health.state is State.DRAINING:
        parts.append(f"{health.in_flight} in flight")
    parts.append(f"backlog {health.backlog}")
    return ", ".join(parts)

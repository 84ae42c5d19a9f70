"""All that maskdrop knows of systemd: how to report to the service manager and to write to the journal."""

import logging
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskdrop.events import Event

logger = logging.getLogger("maskdrop")

PREFIX = "MASKDROP_"
"""Begins the name of every journal field that is maskdrop's own."""

IDENTIFIER = "maskdrop"
"""For ``journalctl -t maskdrop``."""


_RUNNING = Path("/run/systemd/system")
"""Exists if systemd is the system's manager (sd_booted(3))."""


class BindingMissing(Exception):
    """systemd waits to hear from the daemon, but systemd-python is not installed."""


class ServiceManager:
    """sd_notify(3): without NOTIFY_SOCKET in the environment, nothing is sent.

    Attributes:
        watchdog_s: seconds of silence after which systemd takes the daemon for dead; None without a watchdog.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """See whether a service manager listens.

        Args:
            environment: the environment variables; a process that isn't a service may pass none.

        Raises:
            BindingMissing: one listens, but nothing can be sent to it.
        """
        self.watchdog_s = _watchdog_seconds(environment)
        self._socket = environment.get("NOTIFY_SOCKET")
        self._is_deaf = False
        if self._socket is not None:
            try:
                from systemd.daemon import notify
            except ImportError as error:
                raise BindingMissing(
                    "systemd waits to be told that maskdrop is ready (Type=notify), but systemd-python is "
                    "not installed; install libsystemd-dev and maskdrop[systemd], or set Type=exec and no "
                    "WatchdogSec"
                ) from error
            self._notify = notify

    def ready(self, status: str) -> None:
        """All workers can be given pictures, for the first time or with a new configuration."""
        self._tell("READY=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """The line that ``systemctl status`` shows."""
        self._tell(f"STATUS={status}")

    def reloading(self) -> None:
        """A new configuration is being taken up; `ready` ends that (sd_notify(3))."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The end has begun."""
        self._tell("STOPPING=1")

    def feed_watchdog(self) -> None:
        self._tell("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> None:
        """Ask for so many seconds from now on before a start or a stop counts as hung."""
        self._tell(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def _tell(self, *lines: str) -> None:
        if self._socket is None:
            return
        try:
            self._notify("\n".join(line.replace("\n", " ") for line in lines))
        except OSError as error:  # nobody listens (any more), but pictures come all the same
            if not self._is_deaf:
                told = "NOTIFY_SOCKET is %s, and nobody listens there (%s); unset it"
                logger.error(told, self._socket, error)
            self._is_deaf = True
        else:
            self._is_deaf = False


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    """See sd_watchdog_enabled(3): meant for this process only if WATCHDOG_PID is its own or not set."""
    try:
        seconds = int(environment["WATCHDOG_USEC"]) / 1e6
        meant = int(environment.get("WATCHDOG_PID", os.getpid()))
    except (KeyError, ValueError):
        return None
    return seconds if seconds > 0 and meant == os.getpid() else None


def is_booted() -> bool:
    """Whether systemd is this system's manager."""
    return _RUNNING.is_dir()


def manages(root: Path) -> bool:
    """Whether ``systemctl`` is there and acts on the system that lies below this root."""
    return root == Path("/") and is_booted() and shutil.which("systemctl") is not None


def writes_to_journal() -> bool:
    """Whether standard error is the journal (systemd.exec(5), JOURNAL_STREAM), and takes fields."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        there = os.fstat(sys.stderr.fileno())
        same = (there.st_dev, there.st_ino) == (int(device), int(inode))
    except (OSError, ValueError):
        return False
    return same and _binding_is_there()


def _binding_is_there() -> bool:
    try:
        import systemd.journal  # noqa: F401
    except ImportError:
        return False
    return True


def journal_handler(fields_of: str) -> logging.Handler:
    """A log handler that writes to the journal, with a record's fields as ``MASKDROP_`` fields.

    Args:
        fields_of: name of the record attribute that holds a dict of fields.
    """
    from systemd.journal import JournalHandler

    handler: logging.Handler = JournalHandler(SYSLOG_IDENTIFIER=IDENTIFIER)

    def add_fields(record: logging.LogRecord) -> bool:
        for name, value in journal_fields(getattr(record, fields_of, {})).items():
            setattr(record, name, value)
        return True

    handler.addFilter(add_fields)
    return handler


def journal_fields(fields: dict[str, Any]) -> dict[str, str]:
    """A record's fields as the journal holds them: the total time as MASKDROP_MS, the times of the
    stages as MASKDROP_MS_PREPROCESS and so on, each entry of a list on its own line.
    """
    named: dict[str, str] = {}
    for key, value in fields.items():
        if key == "event":
            named["MESSAGE_ID"] = Event[str(value).upper()].value
        if isinstance(value, dict):
            for part, number in value.items():
                name = key if part == "total" else f"{key}_{part}"
                named[_field(name)] = str(number)
        elif isinstance(value, list | tuple):
            named[_field(key)] = "\n".join(str(one) for one in value)
        else:
            named[_field(key)] = str(value)
    return named


def _field(key: str) -> str:
    return PREFIX + "".join(letter if letter.isalnum() else "_" for letter in key.upper())

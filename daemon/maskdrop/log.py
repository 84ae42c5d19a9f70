"""Log lines as text, as JSON or with journal fields, to standard error and a file; workers' lines too."""

import contextlib
import errno
import json
import logging
import logging.handlers
import sys
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from maskdrop.config import LogSettings
from maskdrop.events import Event
from maskdrop.systemd import journal_handler, writes_to_journal

logger = logging.getLogger("maskdrop")

FIELDS = "fields"
"""Name of the record attribute that holds a dict of structured fields."""

_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""Syslog priorities (RFC 5424, table 2), as in sd-daemon(3) line prefixes."""

_LEVEL = {str(priority): level for level, priority in _PRIORITY.items()}


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.000+00:00 INFO saved a.jpg …``."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_time(record)} {record.levelname} {one_line(record.getMessage())}"
        if record.exc_info:
            line += one_line(" | " + self.formatException(record.exc_info))
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, message, and the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {"time": _time(record), "level": record.levelname.lower(), "message": record.getMessage()}
        entry.update(getattr(record, FIELDS, {}))
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class WorkerFormatter(logging.Formatter):
    """``<6>message``: how a worker tells the supervisor a line's level."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info:
            message += " | " + self.formatException(record.exc_info)
        return f"<{_PRIORITY.get(record.levelno, 6)}>{one_line(message)}"


class LineBuffer:
    """Cuts a worker's byte stream into whole lines, however the bytes arrive.

    A line longer than `LIMIT` bytes is given in pieces, so that the buffer stays bounded.
    """

    LIMIT = 65_536

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > self.LIMIT:
            lines.append(self._rest)
            self._rest = b""
        return [line.decode("utf-8", "backslashreplace") for line in lines if line]

    def flush(self) -> list[str]:
        """The last line, if it had no end."""
        return self.feed(b"\n")


class _LogFile(logging.handlers.WatchedFileHandler):
    """A log file that is made again after it was moved away. If that fails, the daemon goes on without it,
    says so once, and tries again with each line."""

    def __init__(self, path: Path, delay: bool = False) -> None:
        super().__init__(path, encoding="utf-8", delay=delay)
        self._fails = False
        self._trouble: OSError | None = None

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()

    def emit(self, record: logging.LogRecord) -> None:
        self._trouble = None
        try:
            super().emit(record)
        except OSError as error:
            self._trouble = error
        if self._trouble is not None and not self._fails:
            told = f"the log file {self.baseFilename!r} can't be written: {self._trouble.strerror}"
            _tell_others(self, told)
        self._fails = self._trouble is not None

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Called while an error of a write is handled, which `logging.StreamHandler` doesn't let out."""
        error = sys.exception()
        if isinstance(error, OSError):
            self._trouble = error
        else:
            super().handleError(record)


def _tell_others(handler: logging.Handler, message: str) -> None:
    """Log what one handler can't by the others."""
    record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, message, (), None)
    for other in logging.getLogger().handlers:
        if other is not handler:
            other.handle(record)


def tell(level: int, event: Event, message: str, **fields: Any) -> None:
    """Log what happened, with its kind and facts for programs that read the log."""
    logger.log(level, "%s", message, extra={FIELDS: {"event": event.name.lower(), **fields}})


def relay(worker: str, line: str) -> None:
    """Log a worker's line under its name. Lines without a level come from libraries; they are warnings."""
    level = logging.WARNING
    if len(line) > 3 and line[0] == "<" and line[2] == ">" and line[1] in _LEVEL:
        level, line = _LEVEL[line[1]], line[3:]
    logger.log(level, "%s: %s", worker, line, extra={FIELDS: {"worker": worker}})


def set_up(settings: LogSettings) -> None:
    """Send the log where the settings say; call again when they change. A file moved away is made again.

    Libraries' warnings go there too, so that all lines have one form.

    Raises:
        OSError: the log file can't be opened, for another reason than a full disk.
    """
    formatter = JsonFormatter() if settings.format == "json" else TextFormatter()
    handlers: list[logging.Handler] = []
    if settings.file is not None:
        handlers.append(_log_file(settings.file))
    if settings.format != "auto" or not writes_to_journal():
        handlers.append(logging.StreamHandler(sys.stderr))
    for handler in handlers:
        handler.setFormatter(formatter)
    if settings.format == "auto" and writes_to_journal():
        handlers.append(journal_handler(FIELDS))
    root = logging.getLogger()
    before, root.handlers = root.handlers, handlers
    root.setLevel(logging.WARNING)
    logger.setLevel(settings.level.upper())
    logging.captureWarnings(True)
    for handler in before:
        with contextlib.suppress(OSError):  # lines that a full disk didn't take: already reported
            handler.close()


def _log_file(path: Path) -> _LogFile:
    """The log file; if its disk is full, a handler that goes on without the file for now."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _LogFile(path)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        return _LogFile(path, delay=True)


def one_line(text: str) -> str:
    """The text with its line ends escaped."""
    return text.replace("\n", "\\n").replace("\r", "\\r")


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")

"""File events from watchdog; no other module uses it."""

import errno
import logging
import os
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyFullEmitter, InotifyWatchGroup
from watchdog.observers.inotify_c import InotifyConstants, InotifyFD, Mask, WatchDescriptor
from watchdog.observers.polling import PollingObserver

from maskdrop.inbox.scan import is_candidate
from maskdrop.machine.inotify import refusal_to_watch

# watchdog logs its own end as an error, at every stop.
logging.getLogger("watchdog.observers.inotify").addFilter(
    lambda record: "when the thread is inactive" not in record.getMessage()
)
_inotify_log = logging.getLogger("watchdog.observers.inotify_c")

# watchdog warns of each folder that is renamed: watched under its old name, it is then watched under the new.
warnings.filterwarnings("ignore", "Callback with id .* already exists", RuntimeWarning)

_OVERFLOW = "queue overflow"
"""What watchdog logs when the kernel dropped events (inotify(7), IN_Q_OVERFLOW)."""

MOST_EVENTS = 20_000
"""Events kept until they are read; what any more would have told, a rescan finds."""


_WANTED: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileModifiedEvent,
    FileClosedEvent,
    FileMovedEvent,
    DirCreatedEvent,
    DirMovedEvent,
]


class Change(Enum):
    """What happened to a file, as far as the inbox cares."""

    WRITING = "writing"
    CLOSED = "closed"
    ARRIVED = "arrived"


@dataclass(frozen=True)
class Event:
    """A change at a path relative to the inbox. A folder that arrives is one event for everything in it."""

    path: str
    change: Change
    is_folder: bool


class Watch(FileSystemEventHandler):
    """Watches a folder from a thread of its own and keeps events until they are taken."""

    def __init__(
        self, inbox: Path, polling: bool, recursive: bool, interval: float, wake: Callable[[], None]
    ) -> None:
        """Prepare; ``wake`` is called, from the watching thread, when there is something to take."""
        self._inbox = os.fspath(inbox)
        self._polling, self._recursive, self._interval = polling, recursive, interval
        self._wake = wake
        self._events: deque[Event] = deque()
        self._overflowed = False
        self._observer: BaseObserver | None = None
        self._watched_inode: tuple[int, int] | None = None

    def start(self) -> None:
        """Begin to watch.

        Raises:
            OSError: the folder is gone, or the system's limit of inotify watches is reached.
        """
        _inotify_log.addFilter(self._heed)
        observer: BaseObserver
        observer = PollingObserver(timeout=self._interval) if self._polling else _Arrivals()
        self._watched_inode = _inode_of(self._inbox)
        try:
            observer.schedule(self, self._inbox, recursive=self._recursive, event_filter=_WANTED)
            observer.start()
        except OSError:
            observer.stop()
            raise
        self._observer = observer

    def stop(self) -> None:
        _inotify_log.removeFilter(self._heed)
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(timeout=5)
            self._observer = None

    @property
    def is_alive(self) -> bool:
        """False once the folder is gone or replaced, or a watching thread has died."""
        observer = self._observer
        if self._watched_inode is None or _inode_of(self._inbox) != self._watched_inode:
            return False
        return observer is not None and observer.is_alive() and all(e.is_alive() for e in observer.emitters)

    @property
    def at_limit(self) -> bool:
        """Whether the system gives this user no more inotify watches: sub-folders may then be unwatched,
        and watchdog doesn't say so.
        """
        if self._polling or not self._recursive:
            return False
        return refusal_to_watch(self._inbox) in (errno.EMFILE, errno.ENOSPC)

    def take(self) -> tuple[list[Event], bool]:
        """The events since the last call, and whether any were dropped for lack of room."""
        overflowed = self._overflowed
        if overflowed:  # reset only then, or an overflow noted in between would be lost
            self._overflowed = False
        events: list[Event] = []
        while self._events:
            events.append(self._events.popleft())
        return events, overflowed

    def _heed(self, record: logging.LogRecord) -> bool:
        """Note an overflow instead of letting watchdog log it; the intake does."""
        if _OVERFLOW not in record.getMessage():
            return True
        self._overflowed = True
        self._wake()
        return False

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called by watchdog. Events that don't concern the inbox's pictures don't wake the loop."""
        path, change = os.fsdecode(event.dest_path or event.src_path), Change.ARRIVED
        relative = _candidate(path, self._inbox, self._recursive)
        if relative is None:
            return
        if isinstance(event, FileClosedEvent):
            change = Change.CLOSED
        elif isinstance(event, FileCreatedEvent | FileModifiedEvent) and not self._polling:
            change = Change.WRITING
        if len(self._events) >= MOST_EVENTS:
            self._overflowed = True
        else:
            self._events.append(Event(relative, change, event.is_directory))
        self._wake()


class _Arrivals(BaseObserver):
    """Hears of what arrives or is written, but not of what leaves: every finished picture does, through a
    hidden folder. So no event is held back either, to see whether what left turns up elsewhere.
    """

    def __init__(self) -> None:
        self._kernel = InotifyFD()
        self._kernel.start()
        super().__init__(_Emitter, inotify_fd=self._kernel)

    def is_alive(self) -> bool:
        """Whether both its threads are alive: one may end without the other."""
        return super().is_alive() and self._kernel.is_alive()

    def on_thread_stop(self) -> None:
        super().on_thread_stop()
        self._kernel.stop()
        self._kernel.join()


class _Emitter(InotifyFullEmitter):
    """Gives full events, which distinguish a file moved in from one that is being written."""

    def on_thread_start(self) -> None:
        path = os.fsencode(self.watch.path)
        mask = Mask(self.get_event_mask_from_filter() & ~InotifyConstants.IN_MOVED_FROM)
        self._inotify = _Folders(
            self._inotify_fd, path, event_mask=mask, is_recursive=self.watch.is_recursive
        )


class _Folders(InotifyWatchGroup):
    """The folders that are watched: the inbox and those in it that aren't hidden.

    No event tells that a folder leaves or becomes hidden: it stays watched under the name it had, which
    another folder may have by then.
    """

    def _add_callback(self, path: bytes) -> None:
        if path == self.path or _candidate(os.fsdecode(path), os.fsdecode(self.path), recursive=True):
            super()._add_callback(path)

    def _remove_watch_internally(self, wd: WatchDescriptor) -> None:
        path = self._active_callbacks_by_watch.pop(wd, None)
        if path is not None and self._active_callbacks_by_path.get(path) == wd:
            del self._active_callbacks_by_path[path]


def _candidate(path: str, inbox: str, recursive: bool) -> str | None:
    """The path relative to the inbox, if it may be a picture or a folder of pictures; otherwise None."""
    relative = path.removeprefix(inbox.rstrip("/") + "/")
    return None if relative == path or not is_candidate(relative, recursive) else relative


def _inode_of(folder: str) -> tuple[int, int] | None:
    try:
        status = Path(folder).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino

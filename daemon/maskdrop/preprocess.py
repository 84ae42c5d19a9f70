"""First stage: from a file in the inbox to upright RGB pixels in a slot, of the whole or of each face."""

import hashlib
import time
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from maskdrop.claim import check_mobility
from maskdrop.config import DecodeSettings, Settings
from maskdrop.cost import cost_of, known_portrait
from maskdrop.crash_points import CrashPoint, crash_point
from maskdrop.decoding import BrokenPicture, at_model_size, decode, decode_at_least, set_up_decoding
from maskdrop.leave_alone import LeaveAlone
from maskdrop.locate import Face, find_faces, regions_of
from maskdrop.machine.heap import keep_memory
from maskdrop.original import read_original
from maskdrop.outbox import Outbox
from maskdrop.results.names import tails_of
from maskdrop.ticket import (
    Cost,
    DoneBefore,
    Facts,
    Fault,
    Left,
    Locate,
    Located,
    Prepare,
    Prepared,
    Ready,
    Refused,
    Region,
    Report,
    Stage,
    Stop,
    cut,
)
from maskdrop.topology.slots import Slots
from maskdrop.topology.worker import Link, Workplace

_DRAFTS = 2
"""A draft's sides are at least this many times the network's (docs/performance.md)."""


def serve(workplace: Workplace, link: Link) -> None:
    """Decode pictures until told to stop."""
    keep_memory()
    set_up_decoding()
    settings, folders, slots = workplace.settings, workplace.folders, workplace.slots
    earlier = Outbox(folders, settings.folders, tails_of(settings.save)) if folders.skips_done else None
    preparer = Preparer(settings, slots, earlier, moves=not folders.keeps)
    link.report(Ready(cost=measure(settings.decode, slots.side) if workplace.measures else None))
    while (task := link.receive_after_rest()) is not None and not isinstance(task, Stop):
        assert isinstance(task, Prepare | Locate), task
        link.report(preparer.do(task))


def measure(settings: DecodeSettings, side: int) -> Cost:
    """What a known portrait of side x side pixels costs this stage."""
    content, target = known_portrait(side), np.empty((side, side, 3), dtype=np.uint8)
    portrait = DecodeSettings(draft=settings.draft)

    def once() -> None:
        hashlib.sha256(content)
        picture, *_ = decode_at_least(content, portrait, _DRAFTS * side)
        np.copyto(target, np.asarray(at_model_size(picture, side)))

    return cost_of(once)


class Preparer:
    """Does a preprocess worker's tasks."""

    def __init__(
        self, settings: Settings, slots: Slots, earlier: Outbox | None = None, moves: bool = False
    ) -> None:
        """Prepare.

        Args:
            earlier: the outbox whose pictures are not to be done again; None if all are done.
            moves: whether originals are to leave the inbox.
        """
        self._settings, self._slots = settings, slots
        self._earlier, self._moves = earlier, moves

    def do(self, task: Prepare | Locate) -> Report:
        """Do a task. A picture that is broken, or to be left alone, is reported too."""
        number = task.ticket.number
        try:
            return self.locate(task) if isinstance(task, Locate) else self.prepare(task)
        except LeaveAlone as error:
            return Left(number, error.absence, cut(error))
        except BrokenPicture as error:
            return Refused(number, Fault(Stage.PREPROCESS, error.error, cut(error)))

    def prepare(self, task: Prepare) -> Prepared | DoneBefore:
        """Read, check and decode one file, and put it into its slot, unless its results are in the outbox.

        Raises:
            LeaveAlone: the file is not to be touched now, or couldn't be moved later.
            BrokenPicture: the file can't become a picture.
        """
        if self._moves:
            check_mobility(self._settings.folders.inbox, task.ticket.path)
        began = time.monotonic()
        content = self._read(task)
        crash_point(CrashPoint.ORIGINAL_READ)
        sha256 = hashlib.sha256(content).hexdigest()
        if self._earlier is not None and (names := self._earlier.published(task.ticket, sha256)):
            return DoneBefore(task.ticket.number, names)
        facts = prepare_content(content, sha256, self._settings.decode, self._slots, task.slot)
        return Prepared(task.ticket.number, facts, _since(began))

    def locate(self, task: Locate) -> Located:
        """Find the faces in a slot's labels, and put a view of each, cut from the original, into the slot.

        Raises:
            LeaveAlone, BrokenPicture: as `prepare`.
        """
        began = time.monotonic()
        regions = locate_in(lambda: self._read(task), self._settings, self._slots, task.slot)
        return Located(task.ticket.number, regions, _since(began))

    def _read(self, task: Prepare | Locate) -> bytes:
        return read_original(self._settings.folders.inbox, task.ticket, self._settings.decode.max_bytes)


def prepare_content(content: bytes, sha256: str, settings: DecodeSettings, slots: Slots, slot: int) -> Facts:
    """Decode a picture into a slot.

    Raises:
        BrokenPicture: the content can't become a picture.
    """
    picture, size, has_metadata = decode_at_least(content, settings, _DRAFTS * slots.side)
    put_whole(picture, slots, slot)
    crash_point(CrashPoint.SLOT_FILLED)
    return Facts(sha256, *size, has_metadata)


def locate_in(read: Callable[[], bytes], settings: Settings, slots: Slots, slot: int) -> tuple[Region, ...]:
    """Find the faces in a slot's labels, put a view of each into the slot, and return where they are.

    Args:
        read: returns the original's content; called only where there are faces.

    Raises:
        BrokenPicture: the original can't be decoded in full.
    """
    faces = find_faces(slots.labels[slot], settings.model.classes)
    return put_views(decode(read(), settings.decode), faces, slots, slot) if faces else ()


def put_whole(picture: Image.Image, slots: Slots, slot: int) -> None:
    """Put an upright RGB picture into a slot, as the network reads it."""
    np.copyto(slots.pictures[slot], np.asarray(at_model_size(picture, slots.side)))


def put_views(picture: Image.Image, faces: Sequence[Face], slots: Slots, slot: int) -> tuple[Region, ...]:
    """Put a view of each of the largest faces into a slot, and return where in the picture they are."""
    regions = regions_of(faces, picture.width, picture.height, slots.view_pictures.shape[1])
    for view, region in enumerate(regions):
        cut = picture.crop((region.left, region.top, region.right, region.bottom))
        np.copyto(slots.view_pictures[slot, view], np.asarray(at_model_size(cut, slots.side)))
    return regions


def _since(began: float) -> float:
    return (time.monotonic() - began) * 1000

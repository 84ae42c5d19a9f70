"""First stage: from a file in the inbox to upright RGB pixels in a slot, whole or of each face."""

import errno
import hashlib
import io
import os
import stat
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from maskdrop.beneath import open_file, open_folder, split
from maskdrop.colours import lies_on_its_side, to_rgb, upright
from maskdrop.config import DecodeSettings, Settings
from maskdrop.cost import cost_of, known_portrait
from maskdrop.crash_points import CrashPoint, crash_point
from maskdrop.heap import keep_memory
from maskdrop.locate import Face, find_faces, regions_of
from maskdrop.quiet import quiet_libraries
from maskdrop.result_names import EarlierResults
from maskdrop.ticket import (
    MESSAGE_LIMIT,
    Absence,
    Cost,
    DoneBefore,
    Facts,
    Fault,
    Identity,
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
    Ticket,
)
from maskdrop.topology.slots import Places
from maskdrop.topology.worker import Link, Workplace

_DRAFTS = 2
"""A draft is at least so many times as large as the network's square: docs/performance.md."""


class BrokenPicture(Exception):
    """The file's content can't become a picture. The message is for the reason file."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error


class LeaveAlone(Exception):
    """The file is not to be touched now."""

    def __init__(self, absence: Absence, message: str) -> None:
        super().__init__(message)
        self.absence = absence


def serve(workplace: Workplace, link: Link) -> None:
    """Decode pictures until told to stop."""
    keep_memory()
    set_up_decoding()
    settings, folders = workplace.settings, workplace.folders
    earlier = EarlierResults(folders, settings) if folders.skips_done else None
    link.report(Ready(cost=measure(settings.decode, workplace.slots.side) if workplace.measures else None))
    while (task := link.receive_after_rest()) is not None and not isinstance(task, Stop):
        assert isinstance(task, Prepare | Locate), task
        link.report(do(task, settings, workplace.slots, earlier))


def set_up_decoding() -> None:
    """Make this process one that decodes: Pillow's own limit off, its warnings off, its formats known."""
    Image.MAX_IMAGE_PIXELS = None  # checked in `decode`, against the configured limit, before decoding
    warnings.simplefilter("ignore")
    Image.init()


def measure(settings: DecodeSettings, side: int) -> Cost:
    """What a known portrait of side x side costs this stage."""
    content, target = known_portrait(side), np.empty((side, side, 3), dtype=np.uint8)
    portrait = DecodeSettings(draft=settings.draft)

    def once() -> None:
        hashlib.sha256(content)
        picture, *_ = decode_at_least(content, portrait, _DRAFTS * side)
        np.copyto(target, np.asarray(at_model_size(picture, side)))

    return cost_of(once)


def do(
    task: Prepare | Locate, settings: Settings, slots: Places, earlier: EarlierResults | None = None
) -> Report:
    """Do a task; a picture that is broken or has changed is a report too.

    Args:
        earlier: results of pictures that are not to be done again; None: all are done.
    """
    number = task.ticket.number
    try:
        if isinstance(task, Locate):
            return locate(task, settings, slots)
        return prepare(task, settings, slots, earlier)
    except LeaveAlone as error:
        return Left(number, error.absence, str(error)[:MESSAGE_LIMIT])
    except BrokenPicture as error:
        return Refused(number, Fault(Stage.PREPROCESS, error.error, str(error)[:MESSAGE_LIMIT]))


def prepare(
    task: Prepare, settings: Settings, slots: Places, earlier: EarlierResults | None = None
) -> Prepared | DoneBefore:
    """Read, check and decode one file, and put it into its slot, unless its results are in the outbox.

    Raises:
        LeaveAlone: the file is not to be touched now.
        BrokenPicture: it can't become a picture.
    """
    began = time.monotonic()
    content = read_original(settings.folders.inbox, task.ticket, settings.decode.max_bytes)
    crash_point(CrashPoint.ORIGINAL_READ)
    sha256 = hashlib.sha256(content).hexdigest()
    if earlier is not None and (names := earlier.of(task.ticket, sha256)):
        return DoneBefore(task.ticket.number, names)
    facts = prepare_content(content, sha256, settings.decode, slots, task.slot)
    return Prepared(task.ticket.number, facts, (time.monotonic() - began) * 1000)


def prepare_content(content: bytes, sha256: str, settings: DecodeSettings, slots: Places, slot: int) -> Facts:
    """Decode a picture into a slot.

    Raises:
        BrokenPicture: it can't become a picture.
    """
    picture, size, has_metadata = decode_at_least(content, settings, _DRAFTS * slots.side)
    put_whole(picture, slots, slot)
    crash_point(CrashPoint.SLOT_FILLED)
    return Facts(sha256, *size, has_metadata)


def locate(task: Locate, settings: Settings, slots: Places) -> Located:
    """Find the faces in a slot's labels, and put a view of each, cut from the original, into the slot.

    Raises:
        LeaveAlone, BrokenPicture: as `prepare`.
    """
    began = time.monotonic()

    def read() -> bytes:
        return read_original(settings.folders.inbox, task.ticket, settings.decode.max_bytes)

    regions = locate_in(read, settings, slots, task.slot)
    return Located(task.ticket.number, regions, (time.monotonic() - began) * 1000)


def locate_in(read: Callable[[], bytes], settings: Settings, slots: Places, slot: int) -> tuple[Region, ...]:
    """Find the faces in a slot's labels, and put a view of each into the slot; where they are.

    Args:
        read: gives the original's content; called only where there are faces.

    Raises:
        BrokenPicture: it can't be decoded in full.
    """
    faces = find_faces(slots.labels[slot], settings.model.classes)
    return put_views(decode(read(), settings.decode), faces, slots, slot) if faces else ()


def put_whole(picture: Image.Image, slots: Places, slot: int) -> None:
    """Put an upright RGB picture into a slot, as the network reads it."""
    np.copyto(slots.pictures[slot], np.asarray(at_model_size(picture, slots.side)))


def put_views(picture: Image.Image, faces: Sequence[Face], slots: Places, slot: int) -> tuple[Region, ...]:
    """Put a view of each of the largest faces into a slot; where in the picture they are."""
    regions = regions_of(faces, picture.width, picture.height, slots.view_pictures.shape[1])
    for view, region in enumerate(regions):
        cut = picture.crop((region.left, region.top, region.right, region.bottom))
        np.copyto(slots.view_pictures[slot, view], np.asarray(at_model_size(cut, slots.side)))
    return regions


def read_original(inbox: Path, ticket: Ticket, max_bytes: int) -> bytes:
    """The whole content of the file that the ticket means.

    Opened without following a link anywhere on its path, and without waiting for a FIFO's writer.

    Raises:
        LeaveAlone: the file is gone, may not be read, or is not the one seen in the inbox.
        BrokenPicture: it is empty or larger than ``max_bytes``.
    """
    try:
        parent, name = split(ticket.path)
        with open_folder(inbox, parent) as folder:
            descriptor = open_file(folder, name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise LeaveAlone(Absence.GONE, "no such file any more") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise LeaveAlone(Absence.CHANGED, "became a symbolic link") from error
        remedy = "; mend its permissions" if error.errno in (errno.EACCES, errno.EPERM) else ""
        raise LeaveAlone(Absence.UNREADABLE, f"{error.strerror}{remedy}") from error
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or Identity.of(status) != ticket.identity:
            raise LeaveAlone(Absence.CHANGED, "changed since it settled")
        if status.st_size == 0:
            raise BrokenPicture("EmptyFile", "the file is empty")
        if status.st_size > max_bytes:
            problem = f"{status.st_size} bytes are more than decode.max_bytes = {max_bytes}"
            raise BrokenPicture("TooManyBytes", problem)
        try:
            content = file.read(status.st_size + 1)
        except OSError as error:
            raise LeaveAlone(Absence.UNREADABLE, f"{error.strerror} while reading") from error
        if len(content) != status.st_size or Identity.of(os.fstat(descriptor)) != ticket.identity:
            raise LeaveAlone(Absence.CHANGED, "changed while it was read")
    return content


def decode(content: bytes, settings: DecodeSettings, is_guest: bool = False) -> Image.Image:
    """Decode a picture in full: first frame, upright, RGB, at its own size.

    Raises:
        BrokenPicture: as `decode_at_least`.
    """
    return decode_at_least(content, settings, None, is_guest)[0]


def decode_at_least(
    content: bytes, settings: DecodeSettings, least: int | None, is_guest: bool = False
) -> tuple[Image.Image, tuple[int, int], bool]:
    """Decode a picture: first frame, upright, RGB.

    Args:
        least: with ``decode.draft``, a JPEG may come at 1/2, 1/4 or 1/8 of its size if both sides
            stay as long as this; None: it comes at its own size.
        is_guest: the process is somebody else's, who may have several threads: what libraries write to
            its standard error is left alone.

    Returns:
        The picture, its own upright width and height, and whether it has EXIF or a profile.

    Raises:
        BrokenPicture: not a picture of a configured format, truncated, damaged, or larger
            than ``max_pixels``, which is checked before any pixel is decoded.
    """
    formats = [name.upper() for name in settings.formats]
    try:
        quiet = nullcontext() if is_guest else quiet_libraries()
        with quiet, Image.open(io.BytesIO(content), formats=formats) as image:
            pixels = image.width * image.height
            if pixels > settings.max_pixels:
                problem = f"{image.width} x {image.height} pixels are more than decode.max_pixels"
                raise BrokenPicture("TooManyPixels", f"{problem} = {settings.max_pixels}")
            width, height = image.size
            if settings.draft and least is not None:
                image.draft(None, (least, least))
            image.load()
            size = (height, width) if lies_on_its_side(image) else (width, height)
            return to_rgb(upright(image)), size, _has_metadata(image)
    except BrokenPicture:
        raise
    except UnidentifiedImageError as error:
        problem = f"not a picture of a format in decode.formats ({', '.join(formats)})"
        raise BrokenPicture(type(error).__name__, problem) from error
    except Exception as error:  # decoders raise every kind of error on damaged input
        refuse_want_of_memory(error)
        raise BrokenPicture(type(error).__name__, str(error) or type(error).__name__) from error


def _has_metadata(image: Image.Image) -> bool:
    try:
        return "icc_profile" in image.info or len(image.getexif()) > 0
    except MemoryError:
        raise
    except Exception:  # damaged EXIF fails in many ways; whoever wants it sees what is left of it
        return True


def refuse_want_of_memory(error: Exception) -> None:
    """Raise MemoryError if that is what a decoder or encoder means by its error.

    Want of memory is not the picture's fault on the first try: it ends the worker and
    counts as an attempt. Codecs tell it as an OSError of code -9 (``PIL.ImageFile.ERRORS``).
    """
    if isinstance(error, MemoryError) or "out of memory" in str(error):
        raise MemoryError(str(error) or "no memory for the picture") from error


def at_model_size(picture: Image.Image, side: int) -> Image.Image:
    """The picture as the network reads it, ``side`` x ``side``, bilinear."""
    if picture.size == (side, side):
        return picture  # resize would copy it
    return picture.resize((side, side), Image.Resampling.BILINEAR)

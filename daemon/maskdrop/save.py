"""Third stage: from pixels and labels to files in the outbox, the original put away."""

import io
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskdrop.beneath import identity_below
from maskdrop.claim import OriginalChanged, OriginalStuck, is_claimed
from maskdrop.config import ImageOutput, Output, Settings
from maskdrop.cost import Cost, cost_of, known_portrait
from maskdrop.crash_points import CrashPoint, crash_point
from maskdrop.durable import FolderTrouble, try_writing
from maskdrop.locate import at_scale, joined
from maskdrop.mask import cut_out, kept, over_black, overlay, scale_labels
from maskdrop.metadata import Carried, exif_for, profile_for, read_metadata
from maskdrop.outbox import Outbox, Result
from maskdrop.parts import Colour
from maskdrop.preprocess import BrokenPicture, LeaveAlone, decode, read_original, refuse_want_of_memory
from maskdrop.quarantine import quarantine, quarantine_copy
from maskdrop.quiet import quiet_libraries
from maskdrop.result_names import format_of, tail_of, tails_of
from maskdrop.sidecar import sidecar
from maskdrop.ticket import (
    MESSAGE_LIMIT,
    Absence,
    Facts,
    Fault,
    Identity,
    Left,
    Quarantine,
    Quarantined,
    Ready,
    Refused,
    Region,
    Report,
    Save,
    Saved,
    Stage,
    Stalled,
    Stop,
    Ticket,
)
from maskdrop.topology.slots import Slots
from maskdrop.topology.worker import Link, Workplace

Pixels = NDArray[np.uint8]


def serve(workplace: Workplace, link: Link) -> None:
    """Save and quarantine pictures until told to stop."""
    Image.MAX_IMAGE_PIXELS = None  # preprocess has checked the size of every picture that comes here
    warnings.simplefilter("ignore")  # preprocess has judged the picture
    Image.init()
    saver = Saver(workplace)
    link.report(Ready(cost=measure(workplace) if workplace.measures else None))
    while (task := link.receive()) is not None and not isinstance(task, Stop):
        assert isinstance(task, Save | Quarantine), task
        report = saver.save(task) if isinstance(task, Save) else saver.quarantine(task)
        crash_point(CrashPoint.REPORT_DUE)
        link.report(report)


def measure(workplace: Workplace) -> Cost:
    """What a known portrait costs this stage, in a slot of its own; nothing that has a name is written."""
    side, kept_label = workplace.slots.side, min(workplace.settings.kept_labels)
    slots = Slots(1, side)
    with Image.open(io.BytesIO(known_portrait(side))) as image:
        slots.pictures[0] = np.asarray(image.convert("RGB"))
    slots.labels[0] = np.where(slots.pictures[0, :, :, 0] > 100, kept_label, 0)  # its lighter part, much skin
    nobody = Ticket(0, "", Identity(0, 0, 0, 0))
    task = Save(nobody, 0, Facts("0" * 64, side, side, has_metadata=False))
    saver = Saver(replace(workplace, slots=slots))
    try:
        return cost_of(lambda: saver.rehearse(task))
    finally:
        slots.close()


class Saver:
    """What a save worker does with its tasks."""

    def __init__(self, workplace: Workplace) -> None:
        settings = workplace.settings
        self._settings = settings
        self._slots = workplace.slots
        self._folders = workplace.folders
        self._outbox = Outbox(self._folders, settings.folders)

    def save(self, task: Save) -> Report:
        """Render, publish, put away; each report says how far the picture is from the inbox."""
        began = time.monotonic()
        ticket = task.ticket
        try:
            names = self._publish(task)
            if not self._folders.keeps:
                self._outbox.put_away(ticket)
        except OriginalChanged:
            if not self._outbox.was_put_away(ticket, task.facts.sha256, tails_of(self._settings.save)):
                return Left(ticket.number, Absence.CHANGED, "gone or changed while it was processed")
            names = ()
        except OriginalStuck as error:
            return Left(ticket.number, Absence.UNREADABLE, str(error)[:MESSAGE_LIMIT])
        except LeaveAlone as error:
            return Left(ticket.number, error.absence, str(error)[:MESSAGE_LIMIT])
        except FolderTrouble as error:
            return Stalled(ticket.number, str(error)[:MESSAGE_LIMIT])
        except BrokenPicture as error:
            return Refused(ticket.number, Fault(Stage.SAVE, error.error, str(error)[:MESSAGE_LIMIT]))
        return Saved(ticket.number, names, (time.monotonic() - began) * 1000)

    def quarantine(self, task: Quarantine) -> Report:
        """Move a picture to quarantine, or copy it where originals are kept."""
        ticket = task.ticket
        try:
            put = quarantine_copy if self._folders.keeps else quarantine
            name = put(self._folders, ticket, task.fault, task.attempts, self._settings.folders)
        except OriginalChanged:
            return Left(ticket.number, Absence.CHANGED, "gone or changed before it could be quarantined")
        except OriginalStuck as error:
            return Left(ticket.number, Absence.UNREADABLE, str(error)[:MESSAGE_LIMIT])
        except FolderTrouble as error:
            return Stalled(ticket.number, str(error)[:MESSAGE_LIMIT])
        return Quarantined(ticket.number, name)

    def rehearse(self, task: Save) -> None:
        """Render, and write what leaves no trace; for `measure`."""
        for result in self._render(task):
            try_writing(self._folders.outbox, result.content)

    def _publish(self, task: Save) -> tuple[str, ...]:
        """The results' names; none where a worker that died had published them and come further."""
        ticket, inbox = task.ticket, self._folders.inbox
        if not self._folders.keeps and is_claimed(inbox, ticket):
            return ()
        if identity_below(inbox, ticket.path) != ticket.identity:
            raise OriginalChanged
        return self._outbox.publish(ticket, task.facts.sha256, self._render(task))

    def _render(self, task: Save) -> list[Result]:
        """Every configured result."""
        picture, carried = self._original(task)
        results, settings = [], self._settings
        for output, labels in self._labels_for(task):
            if output == "json":
                content = sidecar(task, labels, settings.model.classes)
            else:
                pixels = self._slots.pictures[task.slot] if output == "model" else picture
                content = self._encode(output, compose(output, pixels, labels, settings), task, carried)
            results.append(Result(tail_of(output, settings.save), content))
        return results

    def _labels_for(self, task: Save) -> Iterator[tuple[Output, Pixels]]:
        """Each configured output, with labels at its size; those of the picture's own size are made once."""
        own: Pixels | None = None
        for output in self._settings.save.outputs:
            if output == "model":
                yield output, self._labels(task, self._slots.side, self._slots.side)
            else:
                if own is None:
                    own = self._labels(task, task.facts.width, task.facts.height)
                yield output, own

    def _original(self, task: Save) -> tuple[Pixels, Carried]:
        """The picture's own pixels and metadata; nothing is read that no output wants. Where the pixels
        are those of the slot they are not decoded again; carrying others here would take slots as
        large as the largest picture.
        """
        wanted, slot, side = (
            set(self._settings.save.outputs),
            self._slots.pictures[task.slot],
            self._slots.side,
        )
        keeps_metadata = bool(self._settings.save.metadata and wanted - {"json", "labels"})
        keeps_metadata = keeps_metadata and task.facts.has_metadata
        is_in_slot = wanted <= {"model", "json"} or (task.facts.width, task.facts.height) == (side, side)
        if not keeps_metadata and is_in_slot:
            return slot, Carried()
        content = read_original(self._folders.inbox, task.ticket, self._settings.decode.max_bytes)
        carried = read_metadata(content, self._settings.decode) if keeps_metadata else Carried()
        if is_in_slot:
            return slot, carried
        return np.asarray(decode(content, self._settings.decode)), carried

    def _labels(self, task: Save, width: int, height: int) -> Pixels:
        """The picture's labels at a size: the whole one's, or those of its faces, each in its place."""
        across, down = width / task.facts.width, height / task.facts.height
        places = tuple(at_scale(region, across, down) for region in task.regions)
        return labels_at(self._slots, task.slot, places, width, height)

    def _encode(self, output: ImageOutput, image: Image.Image, task: Save, carried: Carried) -> bytes:
        settings, form = self._settings.save, format_of(output, self._settings.save)
        metadata = settings.metadata if output != "labels" else ()
        traits: dict[str, Any] = {"exif": exif_for(carried, metadata, task.facts.sha256)}
        if profile := profile_for(carried, metadata):
            traits["icc_profile"] = profile
        buffer = io.BytesIO()
        try:
            with quiet_libraries():
                image.save(buffer, form, quality=settings.quality, **traits)
        except (OSError, ValueError) as error:  # such as WebP's limit of 16,383 pixels a side
            refuse_want_of_memory(error)
            size = f"{image.width} x {image.height}"
            problem = f"{size} pixels can't be written as {form}: {error}; choose another save.format"
            raise BrokenPicture(type(error).__name__, problem) from error
        return buffer.getvalue()


def labels_at(slots: Slots, slot: int, places: Sequence[Region], width: int, height: int) -> Pixels:
    """A slot's labels at a size, uint8 (height, width): the whole picture's, or where there are any,
    those of its faces in their places.

    Args:
        places: in pixels of the width x height that is wanted.
    """
    if not places:
        return scale_labels(slots.labels[slot], width, height)
    return joined(slots.view_labels[slot][: len(places)], places, width, height)


def compose(output: ImageOutput, picture: Pixels, labels: Pixels, settings: Settings) -> Image.Image:
    """One result as an image.

    Args:
        picture: uint8 (height, width, 3), RGB.
        labels: uint8 (height, width).
    """
    keep, palette = kept(labels, settings.kept_labels), settings.model.colours
    makers: dict[ImageOutput, Callable[[], Image.Image]] = {
        "face": lambda: Image.fromarray(over_black(picture, keep)),
        "model": lambda: Image.fromarray(over_black(picture, keep)),
        "cutout": lambda: Image.fromarray(cut_out(picture, keep)),
        "labels": lambda: _with_palette(labels, palette),
        "overlay": lambda: Image.fromarray(overlay(picture, labels, palette)),
    }
    return makers[output]()


def _with_palette(labels: Pixels, palette: Sequence[Colour]) -> Image.Image:
    image = Image.fromarray(labels)
    image.putpalette([channel for colour in palette for channel in colour])
    return image

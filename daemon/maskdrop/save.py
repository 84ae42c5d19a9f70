"""Third stage: from pixels and labels to files in the outbox; then the original is put away."""

import time
from collections.abc import Callable

import numpy as np

from maskdrop.beneath import identity_below
from maskdrop.claim import is_claimed
from maskdrop.config import DecodeSettings
from maskdrop.cost import cost_of, known_portrait
from maskdrop.crash_points import CrashPoint, crash_point
from maskdrop.decoding import BrokenPicture, decode, set_up_decoding
from maskdrop.durable import FolderTrouble, try_writing
from maskdrop.leave_alone import LeaveAlone, OriginalChanged
from maskdrop.machine.heap import keep_memory
from maskdrop.original import read_original
from maskdrop.outbox import Outbox
from maskdrop.quarantine import quarantine, quarantine_copy
from maskdrop.results.names import tails_of
from maskdrop.results.render import Renderer
from maskdrop.ticket import (
    Absence,
    Cost,
    Facts,
    Fault,
    Identity,
    Left,
    Quarantine,
    Quarantined,
    Ready,
    Refused,
    Report,
    Save,
    Saved,
    Stage,
    Stalled,
    Started,
    Stop,
    Ticket,
    cut,
)
from maskdrop.topology.slots import OwnSlots
from maskdrop.topology.worker import Link, Workplace


def serve(workplace: Workplace, link: Link) -> None:
    """Save and quarantine pictures until told to stop."""
    set_up_decoding()
    keep_memory()
    saver = Saver(workplace, link.report)
    link.report(Ready(cost=measure(workplace) if workplace.measures else None))
    while (task := link.receive_after_rest()) is not None and not isinstance(task, Stop):
        assert isinstance(task, Save | Quarantine), task
        report = saver.save(task) if isinstance(task, Save) else saver.quarantine(task)
        crash_point(CrashPoint.REPORT_DUE)
        link.report(report)


def measure(workplace: Workplace) -> Cost:
    """What a known portrait costs this stage, in a slot of its own; the files it writes have no names."""
    settings, side = workplace.settings, workplace.slots.side
    content, slots = known_portrait(side), OwnSlots.for_one(side)
    slots.pictures[0] = np.asarray(decode(content, DecodeSettings()))
    lighter = slots.pictures[0, :, :, 0] > 100  # much of it skin: about as much as is kept of a face
    slots.labels[0] = np.where(lighter, min(settings.kept_labels), 0)
    nobody = Ticket(0, "", Identity(0, 0, len(content), 0))
    task = Save(nobody, 0, Facts("0" * 64, side, side, has_metadata=False))
    renderer = Renderer(settings, slots)

    def once() -> None:
        results = renderer.render(task, lambda: content)
        try_writing(workplace.folders.outbox, [result.content for result in results])

    return cost_of(once)


class Saver:
    """Does a save worker's tasks."""

    def __init__(self, workplace: Workplace, report: Callable[[Report], None] = lambda report: None) -> None:
        """Prepare.

        Args:
            report: called with signs of life while a picture takes long.
        """
        settings = workplace.settings
        self._settings, self._report = settings, report
        self._renderer = Renderer(settings, workplace.slots)
        self._folders = workplace.folders
        self._outbox = Outbox(self._folders, settings.folders, tails_of(settings.save))

    def save(self, task: Save) -> Report:
        """Render and publish the results, put the original away, and report what became of the picture."""
        began = time.monotonic()
        ticket = task.ticket
        try:
            names = self._publish(task)
            if not self._folders.keeps:
                self._outbox.put_away(ticket)
        except OriginalChanged:
            if not self._outbox.was_put_away(ticket, task.facts.sha256):
                return Left(ticket.number, Absence.CHANGED, "gone or changed while it was processed")
            names = ()
        except LeaveAlone as error:
            return Left(ticket.number, error.absence, cut(error))
        except FolderTrouble as error:
            return Stalled(ticket.number, cut(error))
        except BrokenPicture as error:
            return Refused(ticket.number, Fault(Stage.SAVE, error.error, cut(error)))
        return Saved(ticket.number, names, (time.monotonic() - began) * 1000)

    def quarantine(self, task: Quarantine) -> Report:
        """Move a picture to quarantine, or copy it where originals are kept."""
        ticket = task.ticket
        what = (self._folders, ticket, task.fault, task.attempts, self._settings.folders)
        try:
            if self._folders.keeps:
                name = quarantine_copy(*what, goes_on=lambda: self._report(Started((ticket.number,))))
            else:
                name = quarantine(*what)
        except OriginalChanged:
            return Left(ticket.number, Absence.CHANGED, "gone or changed before it could be quarantined")
        except LeaveAlone as error:
            return Left(ticket.number, error.absence, cut(error))
        except FolderTrouble as error:
            return Stalled(ticket.number, cut(error))
        return Quarantined(ticket.number, name)

    def _publish(self, task: Save) -> tuple[str, ...]:
        """Publish the results and return their names; none where a worker did so before, and died later."""
        ticket, inbox = task.ticket, self._folders.inbox
        if not self._folders.keeps and is_claimed(inbox, ticket):
            return ()
        if identity_below(inbox, ticket.path) != ticket.identity:
            raise OriginalChanged
        most = self._settings.decode.max_bytes
        results = self._renderer.render(task, lambda: read_original(inbox, ticket, most))
        return self._outbox.publish(ticket, task.facts.sha256, results)

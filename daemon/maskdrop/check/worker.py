"""A process that decodes pictures, one after the other, with the daemon's own code."""

import logging
import os
import signal
import sys
from dataclasses import dataclass
from enum import Enum
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from maskdrop.config import DecodeSettings
from maskdrop.crash_points import CrashPoint, crash_point
from maskdrop.decoding import BrokenPicture, decode, set_up_decoding
from maskdrop.exit_codes import EX_OUT_OF_MEMORY
from maskdrop.leave_alone import LeaveAlone
from maskdrop.machine.heap import keep_memory
from maskdrop.original import read_original
from maskdrop.ticket import Ticket, cut


class Verdict(Enum):
    """What was found about a file. One that is unread is neither whole nor broken."""

    WHOLE = "whole"
    BROKEN = "broken"
    UNREAD = "unread"


@dataclass(frozen=True)
class Answer:
    """A verdict on the ticket with this number; the first answer, number 0, says that the worker is ready."""

    number: int
    verdict: Verdict
    error: str = ""
    message: str = ""


READY = Answer(0, Verdict.WHOLE)


def serve(
    folder: Path,
    settings: DecodeSettings,
    tickets: "Connection[Any, Ticket]",
    answers: "Connection[Answer, Any]",
) -> None:
    """Answer tickets until their pipe is closed. Ends the process if memory runs out."""
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C reaches all; the parent decides
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    logging.disable()  # libraries' remarks; what is wrong with a picture stands in its answer
    keep_memory()
    set_up_decoding()
    try:
        answers.send(READY)
        while True:
            answers.send(look(folder, tickets.recv(), settings))
    except (EOFError, BrokenPipeError):
        return  # the parent has all it wants, or is gone
    except MemoryError:
        os._exit(EX_OUT_OF_MEMORY)
    finally:
        sys.stderr.flush()


def look(folder: Path, ticket: Ticket, settings: DecodeSettings) -> Answer:
    """Read and decode one file in full, as the daemon does.

    Raises:
        MemoryError: there is no memory for it.
    """
    try:
        content = read_original(folder, ticket, settings.max_bytes)
        crash_point(CrashPoint.ORIGINAL_READ)
        decode(content, settings)
    except LeaveAlone as error:
        return Answer(ticket.number, Verdict.UNREAD, error.absence.value, cut(error))
    except BrokenPicture as error:
        return Answer(ticket.number, Verdict.BROKEN, error.error, cut(error))
    return Answer(ticket.number, Verdict.WHOLE)

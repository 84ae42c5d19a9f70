"""Reads a picture's own file whole, once that has proved to be the one that was meant."""

import errno
import os
from pathlib import Path

from maskdrop.beneath import NotAFile, open_folder, open_regular, split
from maskdrop.decoding import BrokenPicture
from maskdrop.leave_alone import LeaveAlone
from maskdrop.ticket import Absence, Identity, Ticket


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
            file = open_regular(folder, name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise LeaveAlone(Absence.GONE, "no such file any more") from error
    except NotAFile as error:
        raise LeaveAlone(Absence.CHANGED, "is no file any more") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise LeaveAlone(Absence.CHANGED, "became a symbolic link") from error
        remedy = "; mend its permissions" if error.errno in (errno.EACCES, errno.EPERM) else ""
        raise LeaveAlone(Absence.STUCK, f"{error.strerror}{remedy}") from error
    with file:
        status = os.fstat(file.fileno())
        if Identity.of(status) != ticket.identity:
            raise LeaveAlone(Absence.CHANGED, "changed since it settled")
        if status.st_size == 0:
            raise BrokenPicture("EmptyFile", "the file is empty")
        if status.st_size > max_bytes:
            problem = f"{status.st_size} bytes are more than decode.max_bytes = {max_bytes}"
            raise BrokenPicture("TooManyBytes", problem)
        try:
            content = file.read(status.st_size + 1)
        except OSError as error:
            raise LeaveAlone(Absence.STUCK, f"{error.strerror} while reading") from error
        if len(content) != status.st_size or Identity.of(os.fstat(file.fileno())) != ticket.identity:
            raise LeaveAlone(Absence.CHANGED, "changed while it was read")
    return content

"""Moves another user's pictures as a daemon does that is not root, where renames replace, as over NFS.

Run by root on a folder of rooms: becomes user 12345, whom renameat2(2) refuses its flag RENAME_NOREPLACE from
then on. Exits with a line that says why where that can't be had.
"""

import contextlib
import ctypes
import os
import platform
import sys
from pathlib import Path
from typing import Any

from maskdrop.beneath import open_folder
from maskdrop.claim import claim
from maskdrop.config import FolderSettings
from maskdrop.durable import has_rename_new, move_new
from maskdrop.folders import Folders
from maskdrop.leave_alone import OriginalStuck
from maskdrop.outbox import Outbox
from maskdrop.quarantine import quarantine
from maskdrop.replay import Room, Wanted, find, put_back
from maskdrop.ticket import Fault, Identity, Stage, Ticket

sys.path.append(str(Path(__file__).parent.parent / "tools"))

from dispatch import rename_new

USER = 12345
RENAMEAT2 = {"x86_64": 316, "aarch64": 276}
"""The system call's number, by machine."""

# prctl(2), seccomp(2), and of bpf(4) what is needed.
SET_SECCOMP, MODE_FILTER, SET_NO_NEW_PRIVS = 22, 2, 38
LOAD, EQUAL, HAS_BITS, RETURN = 0x20, 0x15, 0x45, 0x06
NUMBER, FLAGS, NOREPLACE, FAIL_EINVAL, ALLOW = 0, 48, 1, 0x50016, 0x7FFF0000


class Step(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("yes", ctypes.c_uint8),
        ("no", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    )


class Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("steps", ctypes.POINTER(Step)))


def refuse_rename_new() -> None:
    """Have the kernel say of renames without replacement what it says where the file system has none."""
    steps = (
        Step(LOAD, 0, 0, NUMBER),
        Step(EQUAL, 0, 3, RENAMEAT2[platform.machine()]),
        Step(LOAD, 0, 0, FLAGS),
        Step(HAS_BITS, 0, 1, NOREPLACE),
        Step(RETURN, 0, 0, FAIL_EINVAL),
        Step(RETURN, 0, 0, ALLOW),
    )
    refusing = Filter(len(steps), (Step * len(steps))(*steps))
    libc = ctypes.CDLL(None)
    libc.prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(SET_SECCOMP, MODE_FILTER, ctypes.byref(refusing)):
        sys.exit("system calls can't be refused here")


def become_another_user() -> None:
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)


def main(base: Path) -> None:
    inbox, outbox, broken, archive = (base / name for name in ("inbox", "outbox", "quarantine", "archive"))
    folders, settings = Folders(inbox, outbox, broken, archive), FolderSettings(inbox=inbox, outbox=outbox)
    with open_folder(inbox) as folder:
        assert not has_rename_new(folder, ".probe")
    with contextlib.suppress(PermissionError):
        os.link(inbox / "good.jpg", inbox / ".linked")
        sys.exit("fs.protected_hardlinks is not set here")

    def ticket(name: str) -> Ticket:
        return Ticket(1, name, Identity.of((inbox / name).stat()))

    Outbox(folders, settings).put_away(ticket("good.jpg"))
    with claim(inbox, ticket("back.jpg")):
        (inbox / "back.jpg").write_text("newer")
    try:
        Outbox(folders, settings).put_away(ticket("sticky/shared.jpg"))
        sys.exit("a file that may not be taken away was")
    except OriginalStuck:
        pass
    fault = Fault(Stage.PREPROCESS, "Error", "no picture")
    for name in ("bad.jpg", "again.jpg"):
        quarantine(folders, ticket(name), fault, 0, settings)
    (again,) = find(broken, Room.QUARANTINE, Wanted(patterns=("again.jpg",)))
    put_back(broken, inbox, again, 0o755)
    lose_an_answer(inbox, archive)
    dispatch_one(inbox)


def lose_an_answer(inbox: Path, archive: Path) -> None:
    """A server does what it was asked for; its answer is lost, and the request sent again finds nothing."""
    rename = os.rename

    def done_before(*names: Any, **folders: Any) -> None:
        rename(*names, **folders)
        rename(*names, **folders)

    os.rename = done_before
    with open_folder(inbox) as source, open_folder(archive) as target, contextlib.suppress(FileNotFoundError):
        move_new(source, "lost.jpg", target, "lost.jpg")
    os.rename = rename


def dispatch_one(inbox: Path) -> None:
    """What may not be linked is moved, and what may not be taken away is in no second place."""
    (inbox / "b").mkdir()
    rename_new(inbox / "sent.jpg", inbox / "b" / "sent.jpg")
    with contextlib.suppress(PermissionError):
        rename_new(inbox / "sticky" / "shared.jpg", inbox / "b" / "shared.jpg")


if __name__ == "__main__":
    refuse_rename_new()
    become_another_user()
    main(Path(sys.argv[1]))

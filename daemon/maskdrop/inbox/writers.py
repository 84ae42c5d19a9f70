"""Whether anybody has a file open for writing: asks the kernel, by a lease."""

import errno
import fcntl
import os
from enum import Enum

from maskdrop.beneath import open_file
from maskdrop.machine.mounts import leases_are_the_servers


class Writers(Enum):
    """The kernel's answer."""

    NONE = "none"
    SOME = "some"
    UNKNOWN = "unknown"


def writers_at(folder: int, name: str) -> Writers:
    """Ask for a read lease on the file of this name in a folder, and give it back at once. The kernel grants
    it only while nobody has the file open for writing (fcntl(2), F_SETLEASE).

    Unknown if the file can't be opened, if the file system has no leases, or only those that its server
    lends it (NFS, SMB), or if the file is another user's and the daemon has no CAP_LEASE. The caller must
    ignore SIGIO: the kernel sends one if somebody opens the file for writing in that instant.
    """
    try:
        descriptor = open_file(folder, name)
    except OSError:
        return Writers.UNKNOWN
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        told = error.errno == errno.EAGAIN and not leases_are_the_servers(descriptor)
        return Writers.SOME if told else Writers.UNKNOWN
    finally:
        os.close(descriptor)
    return Writers.NONE

"""Which file system a folder lies on, and whether other machines can change it behind this kernel's back."""

import ctypes
import os
import re
from dataclasses import dataclass
from pathlib import Path

_REMOTE = re.compile(
    r"nfs4?|cifs|smb3|smbfs|ceph|afs|coda|9p|virtiofs|lustre|gpfs|beegfs|glusterfs|orangefs|pvfs2|ocfs2|gfs2"
    r"|fuse\.(sshfs|davfs2?|curlftpfs|rclone|s3fs|goofys|geesefs|mount-s3|gcsfuse|blobfuse2?|juicefs|ceph-fuse"
    r"|glusterfs|moosefs|mfs|cvmfs2|hdfs)"
)
"""Types, as in proc_pid_mountinfo(5), of file systems that other machines use at the same time."""

_LEASES_BY_SERVER = frozenset((0x6969, 0x517B, 0xFF534D42, 0xFE534D42))
"""NFS, SMB, CIFS, SMB2 in linux/magic.h."""

_STATFS_BYTES = 256
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Mount:
    """A mount.

    Attributes:
        type: such as ``ext4``, ``nfs4`` or ``fuse.sshfs``.
        source: a device, or ``server:/folder``.
        options: the file system's own, such as ``local_lock=none``.
    """

    type: str
    source: str
    options: frozenset[str]

    @property
    def is_remote(self) -> bool:
        return _REMOTE.fullmatch(self.type) is not None

    @property
    def locks_here_only(self) -> bool:
        """Whether flock(2) holds on this machine only, so that two machines can have the same lock.

        NFS says so in its options (nfs(5)). FUSE programs don't say: where one doesn't pass locks on, such
        as sshfs, this machine's kernel keeps them.
        """
        if self.type in ("nfs", "nfs4"):
            return bool(self.options & {"local_lock=flock", "local_lock=all", "nolock"})
        if self.type in ("cifs", "smb3"):
            return "nobrl" in self.options
        return self.type.startswith("fuse.")


def mount_of(folder: Path) -> Mount | None:
    """The mount that a folder lies on; None where /proc doesn't say.

    Raises:
        OSError: there is no such folder, or it can't be reached.
    """
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        told = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
        numbers = [line.split()[1] for line in told.splitlines() if line.startswith("mnt_id:")]
        lines = os.fsdecode(Path("/proc/self/mountinfo").read_bytes()).splitlines()
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return next((_parse(line) for line in lines if line.split(maxsplit=1)[0] in numbers), None)


def leases_are_the_servers(descriptor: int) -> bool:
    """Whether a server grants the leases on an open file. Such a file system may refuse a lease even where
    nobody writes, because the server hasn't lent it the file (an NFS delegation, an SMB oplock).
    """
    answer = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc.fstatfs(descriptor, answer) != 0:
        return False
    return ctypes.c_ulong.from_buffer(answer).value & 0xFFFFFFFF in _LEASES_BY_SERVER


def _parse(line: str) -> Mount:
    """A line of mountinfo: what follows the lone hyphen is type, source, options."""
    kind, source, options = line.partition(" - ")[2].split(" ", 2)
    return Mount(kind, source, frozenset(options.split(",")))

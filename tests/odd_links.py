"""A file system that has no rename without replacing, and no links, or links that are files of their own.

As exFAT, sshfs or mergerfs, for any program started with the environment that `environment` gives.
"""

import sys
from pathlib import Path
from typing import Literal

sys.path.append("bench")

from slow_disk import preloaded

_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

int renameat2(int folder, const char *name, int target, const char *new_name, unsigned flags) {
    if (flags) { errno = EINVAL; return -1; }
    return renameat(folder, name, target, new_name);
}

int rename(const char *name, const char *new_name) {
    if (!strcmp(getenv("MASKDROP_LINKS"), "renames")) {
        if (linkat(AT_FDCWD, name, AT_FDCWD, new_name, 0)) return -1;
        return unlink(name);
    }
    return renameat(AT_FDCWD, name, AT_FDCWD, new_name);
}

int linkat(int folder, const char *name, int target, const char *new_name, int flags) {
    if (!strcmp(getenv("MASKDROP_LINKS"), "none")) { errno = EPERM; return -1; }
    int source = openat(folder, name, O_RDONLY | O_CLOEXEC);
    if (source < 0) return -1;
    int copy = openat(target, new_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (copy < 0) { close(source); return -1; }
    struct stat status;
    fstat(source, &status);
    while (sendfile(copy, source, NULL, 1 << 20) > 0);
    struct timespec times[2] = {status.st_atim, status.st_mtim};
    futimens(copy, times);
    close(source);
    close(copy);
    return 0;
}
"""


def environment(folder: Path, links: Literal["none", "files", "renames"]) -> dict[str, str]:
    """What to add to a program's environment; the library lies in the folder.

    Args:
        links: there are none; each is a file of its own; renamed files are other files, too.

    Raises:
        CalledProcessError, FileNotFoundError: there is no C compiler that can do it.
    """
    return {**preloaded(folder, "odd_links.so", _SOURCE), "MASKDROP_LINKS": links}

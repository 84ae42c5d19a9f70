"""What a program asks the disk for, in its order: syncs, renames, folders made, names taken away.

Written down by a library that is loaded before all others, as `bench/slow_disk.py` slows a disk down; each
call is done as ever.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.append("bench")

from slow_disk import preloaded

_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void path_of(int folder, const char *name, char *path, size_t size) {
    char link[40], base[4097] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, base, sizeof base - 1);
    base[length > 0 ? length : 0] = 0;
    if (name[0] == '/' || !name[0]) snprintf(path, size, "%s", name[0] ? name : base);
    else snprintf(path, size, "%s/%s", folder == AT_FDCWD ? "." : base, name);
}

static void note(const char *call, const char *first, const char *second, long long bytes) {
    char line[9000];
    int length = snprintf(line, sizeof line, "%s\\t%s\\t%s\\t%lld\\n", call, first, second, bytes);
    int record = open(getenv("MASKDROP_RECORD"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (record >= 0 && write(record, line, length) != length) abort();
    if (record >= 0) close(record);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int synced(int result, int descriptor) {
    char path[4200];
    struct stat status;
    path_of(descriptor, "", path, sizeof path);
    if (!result && !fstat(descriptor, &status)) note("sync", path, "", status.st_size);
    return result;
}

int fsync(int descriptor) { return synced(REAL(fsync)(descriptor), descriptor); }
int fdatasync(int descriptor) { return synced(REAL(fdatasync)(descriptor), descriptor); }

static int moved(int result, int folder, const char *name, int target, const char *new_name) {
    char first[4200], second[4200];
    path_of(folder, name, first, sizeof first);
    path_of(target, new_name, second, sizeof second);
    if (!result) note("move", first, second, 0);
    return result;
}

int renameat(int folder, const char *name, int target, const char *new_name) {
    return moved(REAL(renameat)(folder, name, target, new_name), folder, name, target, new_name);
}
int renameat2(int folder, const char *name, int target, const char *new_name, unsigned flags) {
    return moved(REAL(renameat2)(folder, name, target, new_name, flags), folder, name, target, new_name);
}

static int changed(int result, const char *call, int folder, const char *name) {
    char path[4200];
    path_of(folder, name, path, sizeof path);
    if (!result) note(call, path, "", 0);
    return result;
}

int mkdirat(int folder, const char *name, mode_t mode) {
    return changed(REAL(mkdirat)(folder, name, mode), "make", folder, name);
}
int unlinkat(int folder, const char *name, int flags) {
    return changed(REAL(unlinkat)(folder, name, flags), "remove", folder, name);
}
"""


@dataclass(frozen=True)
class Call:
    """One that succeeded.

    Attributes:
        what: ``sync``, ``move``, ``make`` (a folder) or ``remove``.
        target: of a move; "" of others.
        size: of what was synced, in bytes.
    """

    what: str
    path: str
    target: str
    size: int


def environment(folder: Path) -> dict[str, str]:
    """What to add to a program's environment; library and record lie in the folder.

    Raises:
        CalledProcessError, FileNotFoundError: there is no C compiler that can do it.
    """
    library = preloaded(folder, "disk_record.so", _SOURCE)
    return {**library, "MASKDROP_RECORD": str(folder / "record")}


def recorded(folder: Path) -> list[Call]:
    """All calls until now, the first ones first."""
    lines = (folder / "record").read_text().splitlines()
    split = (line.split("\t") for line in lines)
    return [Call(what, path, target, int(size)) for what, path, target, size in split]

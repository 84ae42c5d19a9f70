"""A slower disk, for any program started with the environment that `environment` gives.

Each fsync(2) and fdatasync(2), and each read(2) of a file below one folder, is done as usual and returns some
milliseconds later: as many as a file says, which may be rewritten while programs run. Linux can slow down a
whole device (dm-delay), where that module exists and may be used; this needs only a C compiler.
"""

import os
import subprocess
from pathlib import Path

_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void wait_as_told(int which) {
    FILE *file = fopen(getenv("MASKDROP_DISK_MS"), "r");
    double told[2] = {0, 0};
    if (file) {
        if (fscanf(file, "%lf %lf", &told[0], &told[1]) != 2) told[which] = 0;
        fclose(file);
    }
    struct timespec left = {told[which] / 1000, (long)(told[which] * 1e6) % 1000000000};
    while (nanosleep(&left, &left));
}

static int sync_slowly(const char *call, int descriptor) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, call), result = real(descriptor);
    wait_as_told(0);
    return result;
}

int fsync(int descriptor) { return sync_slowly("fsync", descriptor); }
int fdatasync(int descriptor) { return sync_slowly("fdatasync", descriptor); }

ssize_t read(int descriptor, void *content, size_t size) {
    static ssize_t (*real)(int, void *, size_t);
    if (!real) real = (ssize_t (*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
    ssize_t result = real(descriptor, content, size);
    const char *below = getenv("MASKDROP_SLOW_BELOW");
    struct stat status;
    if (result <= 0 || !below || fstat(descriptor, &status) || !S_ISREG(status.st_mode)) return result;
    char link[40], path[4097] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    if (readlink(link, path, sizeof path - 1) > 0 && !strncmp(path, below, strlen(below))) wait_as_told(1);
    return result;
}
"""


def environment(
    folder: Path, sync_ms: float = 0, read_ms: float = 0, below: Path | None = None
) -> dict[str, str]:
    """What to add to a program's environment; the library, and the file with the times, lie in the folder.

    Args:
        sync_ms: milliseconds that each fsync takes longer.
        read_ms: the same for each read of a file in ``below``.
        below: a folder; None: reads take as long as usual.

    Raises:
        CalledProcessError, FileNotFoundError: there is no C compiler that can do it.
    """
    set_times(folder, sync_ms, read_ms)
    told = {**preloaded(folder, "slow_disk.so", _SOURCE), "MASKDROP_DISK_MS": str(folder / "disk-ms")}
    return told | ({"MASKDROP_SLOW_BELOW": f"{below.resolve()}{os.sep}"} if below else {})


def preloaded(folder: Path, name: str, source: str) -> dict[str, str]:
    """What to add to a program's environment so that a library made from this source is loaded before others.

    Raises:
        CalledProcessError, FileNotFoundError: there is no C compiler that can make it.
    """
    command = ["cc", "-shared", "-fPIC", "-O2", "-x", "c", "-", "-o", str(folder / name), "-ldl"]
    subprocess.run(command, input=source, text=True, check=True)
    # By its name alone: in LD_PRELOAD a blank ends a path (ld.so(8)).
    folders = os.pathsep.join(filter(None, [str(folder.resolve()), os.environ.get("LD_LIBRARY_PATH")]))
    return {"LD_PRELOAD": name, "LD_LIBRARY_PATH": folders}


def set_times(folder: Path, sync_ms: float = 0, read_ms: float = 0) -> None:
    """Make each sync, and each read, take that much longer from now on."""
    new = folder / "disk-ms.new"
    new.write_text(f"{sync_ms} {read_ms}\n", encoding="ascii")
    new.replace(folder / "disk-ms")

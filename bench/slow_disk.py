"""A slower disk, for any program started with the environment that `environment` gives.

Each fsync(2) is done as ever, and returns so many milliseconds later: as long as a file says, which may be
written again while programs run. Linux can slow a whole device down (dm-delay), where it has that module and
one may use it; this asks for a C compiler alone.
"""

import subprocess
from pathlib import Path

_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int fsync(int descriptor) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync"), result = real(descriptor);
    FILE *file = fopen(getenv("MASKDROP_SYNC_MS"), "r");
    double milliseconds = 0;
    if (file) {
        if (fscanf(file, "%lf", &milliseconds) != 1) milliseconds = 0;
        fclose(file);
    }
    struct timespec left = {milliseconds / 1000, (long)(milliseconds * 1e6) % 1000000000};
    while (nanosleep(&left, &left));
    return result;
}
"""


def environment(folder: Path, milliseconds: float) -> dict[str, str]:
    """What to add to a program's environment; the library, and the file with the time, lie in the folder.

    Raises:
        CalledProcessError, FileNotFoundError: there is no C compiler that can do it.
    """
    library = folder / "slow_disk.so"
    command = ["cc", "-shared", "-fPIC", "-O2", "-x", "c", "-", "-o", str(library), "-ldl"]
    subprocess.run(command, input=_SOURCE, text=True, check=True)
    told = folder / "sync-ms"
    set_sync_time(folder, milliseconds)
    return {"LD_PRELOAD": str(library), "MASKDROP_SYNC_MS": str(told)}


def set_sync_time(folder: Path, milliseconds: float) -> None:
    """From now on each sync takes so much longer."""
    new = folder / "sync-ms.new"
    new.write_text(f"{milliseconds}\n", encoding="ascii")
    new.replace(folder / "sync-ms")

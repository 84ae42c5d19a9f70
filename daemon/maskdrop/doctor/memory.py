"""Memory: room for the slots, for the workers, and what limits both."""

import os
import resource
from pathlib import Path

from maskdrop.config import Settings
from maskdrop.devices import GPU_NODES
from maskdrop.doctor.finding import Finding, fail, ok, size, warning
from maskdrop.machine.control_groups import own_groups
from maskdrop.machine.cores import usable_cores
from maskdrop.supervisor.plan import INFERENCE_BYTES, Plan, slot_bytes

WORKER_BYTES = 60 * 2**20
"""Resident memory of a decoding or saving process without a picture, as measured."""

_ADDRESSES = 4 * 2**30
"""Bytes of addresses, about, that PyTorch's libraries and threads take in a process; most are unused."""

_SHM_BYTES = 64 * 2**20


def slots_bytes(settings: Settings, plan: Plan) -> int:
    """Shared memory that the slots take."""
    return plan.slots * slot_bytes(settings)


def check_memory(settings: Settings, plan: Plan) -> list[Finding]:
    """Everything about memory."""
    return [_slots(settings, plan), _free(settings, plan), _addresses(settings, plan), _shm()]


def _slots(settings: Settings, plan: Plan) -> Finding:
    """Really reserve the slots' memory, unless that is most of what is free."""
    name, wanted = "memory for slots", slots_bytes(settings, plan)
    told = f"{plan.slots} slots of {size(wanted / plan.slots)} are {size(wanted)}"
    remedy = "set fewer workers.slots, or a smaller face.most"
    free = free_bytes()
    if wanted > free:
        return fail(name, f"{told}, but {size(free)} are free", remedy)
    if wanted > free / 2:
        return warning(name, f"{told} of the {size(free)} that are free", remedy)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY and limit < wanted:  # trying would end this process by SIGXFSZ
        return fail(
            name, f"{told}, but no file may be larger than {size(limit)}", "raise ulimit -f (LimitFSIZE=)"
        )
    try:
        descriptor = os.memfd_create("maskdrop-doctor", os.MFD_CLOEXEC)
        try:
            os.posix_fallocate(descriptor, 0, wanted)
        finally:
            os.close(descriptor)
    except OSError as error:
        return fail(name, f"{told}; they can't be reserved ({error.strerror})", remedy)
    return ok(name, told)


def _free(settings: Settings, plan: Plan) -> Finding:
    name, free = "memory for workers", free_bytes()
    cores = usable_cores()
    preprocess = max(plan.preprocess, min(plan.most_preprocess, cores))
    save = max(plan.save, min(plan.most_save, cores))
    wanted = slots_bytes(settings, plan) + (preprocess + save) * WORKER_BYTES
    wanted += len(plan.devices) * INFERENCE_BYTES
    told = f"about {size(wanted)} are needed, {size(free)} are free here"
    remedy = "raise the control group's memory.max (MemoryMax=), or set fewer workers"
    return ok(name, told) if wanted <= free else warning(name, told, remedy)


def _addresses(settings: Settings, plan: Plan) -> Finding:
    name, limit = "address space", resource.getrlimit(resource.RLIMIT_AS)[0]
    wanted = slots_bytes(settings, plan) + _ADDRESSES
    if limit == resource.RLIM_INFINITY:
        return ok(name, "unlimited")
    told = f"a process may use {size(limit)}, about {size(wanted)} are needed"
    if limit < wanted:
        return fail(name, told, "raise ulimit -v (LimitAS=)")
    if settings.model.device != "cpu" and any(Path(node).exists() for node in GPU_NODES):
        # CUDA's unified addressing reserves addresses for all memory of the machine and its GPUs.
        told = f"a process may use {size(limit)}; a GPU's driver reserves more than there is memory"
        return warning(name, told, "ulimit -v unlimited (LimitAS=infinity)")
    return ok(name, told)


def _shm() -> Finding:
    """Room in /dev/shm: not for the slots, but PyTorch may put memory of its own there."""
    name = "/dev/shm"
    try:
        status = os.statvfs("/dev/shm")
    except OSError as error:
        return warning(name, error.strerror or str(error), "mount a tmpfs there: PyTorch may need it")
    free = status.f_bavail * status.f_frsize
    if free < _SHM_BYTES:
        return warning(name, f"{size(free)} free", "mount -o remount,size=1g /dev/shm: PyTorch may need it")
    return ok(name, f"{size(free)} free")


def free_bytes() -> int:
    """Bytes of memory that may still be used: the machine's, or fewer if a control group limits them."""
    free = [_available()]
    for group in own_groups("memory"):
        for most, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            try:
                limit = (group / most).read_text(encoding="ascii").strip()
                if limit != "max":
                    free.append(max(0, int(limit) - int((group / used).read_text(encoding="ascii"))))
            except (OSError, ValueError):
                continue
    return min(free)


def _available() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

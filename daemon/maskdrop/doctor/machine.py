"""The machine: file events, open files, GPU, systemd."""

import errno
import os
import resource
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from maskdrop.beneath import is_folder
from maskdrop.config import Settings
from maskdrop.devices import GPU_NODES, count_gpus
from maskdrop.doctor.finding import Finding, fail, ok, warning
from maskdrop.machine.inotify import refusal_to_watch
from maskdrop.machine.proc import MISSING, REMEDY, has_proc
from maskdrop.supervisor.plan import Plan
from maskdrop.systemd import is_booted

_FEW_WATCHES = 8_192
"""Watches that are enough for most inboxes; Linux's default before 5.11."""

_FILES_A_WORKER = 8
"""Descriptors that the supervisor holds for each worker: pipes, a sentinel, more while it starts."""

_FILES_ELSE = 64
_NVIDIA_SMI = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
_TORCH = "import torch; print(torch.__version__, torch.version.cuda)"
_PATIENCE_S = 60
_HEADERS = ("/usr/include/systemd/sd-daemon.h", "/usr/local/include/systemd/sd-daemon.h")


def check_proc() -> list[Finding]:
    """Nothing where it is there; without it no other check of the machine can be made."""
    return [] if has_proc() else [fail("/proc", MISSING, REMEDY)]


def check_inotify(settings: Settings | None) -> Finding:
    """Really watch a folder, and compare the limits with the inbox's sub-folders."""
    name = "file events"
    if settings is not None and settings.watch.polling:
        return ok(name, "not needed: watch.polling = true")
    inbox = settings.folders.inbox if settings is not None else None
    refused = refusal_to_watch(inbox if inbox is not None and is_folder(inbox) else Path("/"))
    more = "or set watch.polling = true"
    if refused == errno.EMFILE:
        told = "no inotify instance is to be had (fs.inotify.max_user_instances, or the limit of open files)"
        return fail(name, told, f"sysctl fs.inotify.max_user_instances=1024, {more}")
    if refused == errno.ENOSPC:
        told = "no inotify watch is to be had (fs.inotify.max_user_watches)"
        return fail(name, told, f"sysctl fs.inotify.max_user_watches=524288, {more}")
    if refused:
        return fail(name, f"inotify: {os.strerror(refused)}", "set watch.polling = true")
    most, folders = _limit("max_user_watches"), _count_folders(inbox) if inbox is not None else 1
    told = f"{most:,} watches may be set, the inbox has {folders:,} folders"
    raise_it = f"sysctl fs.inotify.max_user_watches={max(524_288, 4 * folders)}"
    if folders > most:
        return fail(name, told, f"{raise_it}, {more}")
    if most < 2 * folders or most < _FEW_WATCHES:
        return warning(name, told, raise_it)
    return ok(name, told)


def check_open_files(plan: Plan) -> Finding:
    """Whether the supervisor may hold as many descriptors as it needs."""
    workers = plan.most_workers
    wanted, limit = workers * _FILES_A_WORKER + _FILES_ELSE, resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    told = f"{limit:,} may be open, {wanted:,} are needed for {workers} workers"
    remedy = "raise ulimit -n (LimitNOFILE=)"
    if limit == resource.RLIM_INFINITY or limit >= 2 * wanted:
        return ok("open files", told)
    return (warning if limit >= wanted else fail)("open files", told, remedy)


def check_gpu(device: str, ask_torch: bool) -> list[Finding]:
    """Driver and devices; PyTorch only if that is wanted, in a process of its own."""
    nodes = [node for node in GPU_NODES if Path(node).exists()]
    findings = [_driver(device, nodes)]
    if ask_torch:
        findings.append(_torch(device, bool(nodes)))
    return findings


def _driver(device: str, nodes: list[str]) -> Finding:
    name, needed = "GPU driver", device.startswith("cuda")
    if device == "cpu":
        return ok(name, "not needed: model.device = cpu")
    if not nodes:
        if needed:
            remedy = "load the driver (modprobe nvidia), give the container its devices, or set auto or cpu"
            return fail(name, f"none of {', '.join(GPU_NODES)} is there, but model.device = {device}", remedy)
        return ok(name, "no GPU here; the CPU is used")
    closed = [node for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if closed:
        verdict = fail if needed else warning
        return verdict(
            name, f"{closed[0]} may not be opened", "add this user to the group that owns it (ls -l)"
        )
    if nodes[0] != "/dev/nvidiactl":
        return ok(name, f"{nodes[0]} is there")
    if shutil.which(_NVIDIA_SMI[0]) is None:
        told = "/dev/nvidiactl is there, but no nvidia-smi to ask"
        return warning(name, told, "install the driver's tools, or try maskdrop doctor --torch")
    done = _run(_NVIDIA_SMI)
    if done is None or done.returncode != 0:
        verdict = fail if needed else warning
        remedy = "install the driver again, or reboot after an update"
        return verdict(name, f"nvidia-smi fails: {_complaint(done)}", remedy)
    return ok(name, "; ".join(done.stdout.strip().splitlines()))


def _torch(device: str, has_nodes: bool) -> Finding:
    name, done = "PyTorch", _run((sys.executable, "-c", _TORCH))
    if done is None or done.returncode != 0:
        said = "no answer" if done is None else (done.stderr.strip().splitlines() or ["no word"])[-1]
        return fail(name, f"can't be imported: {said}", "install it again: pip install torch")
    version, cuda = done.stdout.split()
    try:
        count = count_gpus()
    except TimeoutError as error:
        verdict, remedy = warning if device == "cpu" else fail, "mend it (reboot), or set model.device = cpu"
        return verdict(name, f"{version}, CUDA {cuda}: {error}", remedy)
    told = f"{version}, CUDA {cuda}, {count} GPUs"
    if count == 0 and device.startswith("cuda"):
        return fail(name, told, "install a PyTorch for this driver, or set model.device = auto")
    if count == 0 and has_nodes and device != "cpu":
        return warning(name, told, "a GPU is there: install a PyTorch for its driver")
    return ok(name, told)


def check_systemd() -> Finding:
    """Whether readiness, watchdog and journal fields are available, where systemd runs."""
    name = "systemd"
    runs = is_booted()
    has_headers = any(Path(header).exists() for header in _HEADERS)
    headers = "headers are there" if has_headers else "no headers"
    if find_spec("systemd") is not None:
        return ok(
            name, f"systemd-python is there, {headers}" + ("" if runs else "; systemd does not run here")
        )
    if not runs:
        return ok(name, f"does not run here; no systemd-python, {headers}")
    packages = "" if has_headers else "apt-get install gcc libsystemd-dev pkg-config python3-dev; "
    told = f"no systemd-python, {headers}: no readiness, watchdog and journal fields"
    return warning(name, told, f"{packages}pip install 'maskdrop[systemd]'")


def _limit(name: str) -> int:
    try:
        return int(Path(f"/proc/sys/fs/inotify/{name}").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def _count_folders(inbox: Path) -> int:
    return sum(1 for _ in os.walk(inbox)) or 1


def _complaint(done: "subprocess.CompletedProcess[str] | None") -> str:
    """The first line that a failed program wrote, or else its exit code."""
    if done is None:
        return "no answer"
    return next(filter(None, (done.stdout + done.stderr).splitlines()), f"exit code {done.returncode}")


def _run(command: tuple[str, ...]) -> "subprocess.CompletedProcess[str] | None":
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None

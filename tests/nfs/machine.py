"""Starts a user-mode Linux kernel, which has an NFS server and clients where this machine's has none."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BOOT = Path(__file__).parent / "boot.sh"
TESTS = Path(__file__).parent.parent
PROGRAMS = (
    "linux.uml",
    "rpc.nfsd",
    "rpc.mountd",
    "exportfs",
    "mount.nfs4",
    "modprobe",
    "ip",
    "nsenter",
    "unshare",
)
SECONDS = 800.0

UNKNOWN_REGISTERS = "set fp regs failed"
"""What the kernel says on processors with AMX, whose registers are more than its buffer for them holds."""


def run_in_machine(scenario: str, out: Path, memory: str = "256M") -> dict[str, Any]:
    """Run a file of this folder as the only program of a machine of its own.

    Args:
        out: a folder that the scenario sees as /run/out; it leaves its facts in ``facts.json`` there.

    Returns:
        Those facts. Skips the test where there is no such kernel.
    """
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if missing:
        pytest.skip(
            f"no {missing[0]}: apt-get install user-mode-linux nfs-kernel-server nfs-common iproute2 kmod"
        )
    kernel = shutil.which("linux.uml", path=path)
    assert kernel is not None
    variables = {
        "OUT": str(out),
        "PYTHON": sys.executable,
        "SCENARIO": str(Path(__file__).parent / scenario),
        "PYTHONPATH": f"{TESTS.parent / 'daemon'}:{TESTS}",
    }
    if any(len(word.split()) != 1 for word in (str(out), str(BOOT), *variables.values())):
        pytest.skip("a kernel's command line can't name paths with blanks in them")
    command = [kernel, f"mem={memory}", "rootfstype=hostfs", "rootflags=/", "ro", "init=/bin/sh", "quiet"]
    command += ["con=null", "con0=null,fd:1", f"uml_dir={out}/", f"umid=maskdrop-{os.getpid()}"]
    command += [f"{name}={value}" for name, value in variables.items()]
    command += ["--", str(BOOT)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS
    )
    console = done.stdout.decode("utf-8", "replace")
    said = (out / "said").read_text() if (out / "said").exists() else ""
    if not (out / "code").exists() and "Kernel panic" in console:
        if UNKNOWN_REGISTERS in console:
            pytest.skip("a user-mode kernel doesn't know this processor's registers: take one without AMX")
        if "hostfs" in console:
            pytest.skip(f"a user-mode kernel doesn't start here: {console[-300:]}")
    assert (out / "code").exists(), f"the machine didn't come up:\n{console[-3000:]}"
    assert (out / "code").read_text().strip() == "0", f"{said[-6000:]}\n{console[-2000:]}"
    facts: dict[str, Any] = json.loads((out / "facts.json").read_text())
    return facts

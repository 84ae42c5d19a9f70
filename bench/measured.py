"""What benchmarks share: a line about the machine, scratch folders, and a running daemon."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import PIL
import psutil
import torch

from maskdrop import __version__
from maskdrop.health.file import HealthUnreadable, read_health

PATIENCE_S = 300.0

SCRATCH = "MASKDROP_BENCH_SCRATCH"
"""Environment variable: a folder for everything that runs leave; whoever sets it removes it at the end."""

WEIGHTS = "MASKDROP_WEIGHTS"
"""Environment variable: a weights file that all contestants run in place of the embedded one."""

SAME_OUTPUTS: dict[str, Any] = {"outputs": ["model"], "quality": 75, "suffix": {"model": ""}}
"""Settings that make the daemon write what the article writes: 512 x 512, at Pillow's own JPEG quality."""


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """A folder for one run. With `SCRATCH` set, it stays until the last of several runs has ended: for
    minutes after files were deleted, ext4 without a journal looks at each of their inodes again whenever a
    file is made (`recently_deleted` in the kernel's fs/ext4/ialloc.c), which took a saver a quarter of its
    time.
    """
    kept = os.environ.get(SCRATCH)
    base = Path(tempfile.mkdtemp(prefix=f"maskdrop-{name}-", dir=kept))
    try:
        yield base
    finally:
        if kept is None:
            shutil.rmtree(base)


def machine() -> str:
    """Machine and versions, on one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = [torch.cuda.get_device_name(at) for at in range(count)]
    return (
        f"{platform.platform()}, {', '.join([f'{os.cpu_count()} cores ({model})', *gpus])}, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB; Python {platform.python_version()}, "
        f"torch {torch.__version__}, Pillow {PIL.__version__}, maskdrop {__version__}"
    )


class Daemon:
    """A running daemon on folders below a base."""

    def __init__(self, base: Path, process: "subprocess.Popen[bytes]") -> None:
        self.base, self.process = base, process

    def health(self) -> dict[str, Any]:
        try:
            return read_health(self.base / "health.json")
        except HealthUnreadable:
            return {"state": "none", "counts": {"saved": 0}}

    def wait_saved(self, count: int) -> int:
        """Wait until the daemon runs and has saved ``count`` pictures.

        Returns:
            The supervisor's largest resident size meanwhile, in bytes.

        Raises:
            SystemExit: the daemon ended, or the wait took too long.
        """
        most, deadline = 0, time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                sys.exit(f"the daemon ended:\n{(self.base / 'log').read_text()}")
            most = max(most, psutil.Process(self.process.pid).memory_info().rss)
            health = self.health()
            if health["state"] == "running" and health["counts"]["saved"] >= count:
                return most
            time.sleep(0.02)
        sys.exit(f"{count} results did not come:\n{(self.base / 'log').read_text()[-3000:]}")


@contextmanager
def running(base: Path, settings: str = "", interval_s: float = 0.1) -> Iterator[Daemon]:
    """A daemon on ``base/inbox``, drained at the end; its log is ``base/log``."""
    config = base / "maskdrop.toml"
    config.write_text(f"{settings}\n[health]\ninterval_s = {interval_s}\n")
    folders = ["--inbox", str(base / "inbox"), "--outbox", str(base / "outbox")]
    weights = ["--weights", os.environ[WEIGHTS]] if WEIGHTS in os.environ else []
    command = [sys.executable, "-m", "maskdrop", "run", "--config", str(config), *folders, *weights]
    with (base / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield Daemon(base, process)
    finally:
        process.terminate()
        process.wait()

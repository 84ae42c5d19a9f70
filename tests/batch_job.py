"""A folder of pictures, and `maskdrop batch` on it as a process."""

import hashlib
import json
import os
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nursery import Born
from running import QUICK, begin, maskdrop


@dataclass
class Pictures:
    """A folder of pictures, and a place for their results."""

    base: Path
    weights: Path

    @property
    def source(self) -> Path:
        return self.base / "in"

    @property
    def out(self) -> Path:
        return self.base / "out"

    def put(self, name: str | bytes, content: bytes) -> None:
        path = self.source / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@dataclass
class Job(Pictures):
    """A batch on a folder of pictures."""

    @property
    def lost(self) -> Path:
        return self.base / "lost"

    def words(self, arguments: Sequence[str], settings: str = "") -> list[str]:
        """What is typed behind `maskdrop`."""
        config = self.base / "maskdrop.toml"
        config.write_text(QUICK + settings)
        words = ["batch", str(self.source), str(self.out), "--config", str(config)]
        return [*words, "--weights", str(self.weights), *arguments]

    def begin(self, *arguments: str, settings: str = "", **options: Any) -> "Born | subprocess.Popen[str]":
        return begin(self.words(arguments, settings), **options)

    def run(
        self,
        *arguments: str,
        code: int,
        settings: str = "",
        prefix: Sequence[str] = (),
        env: dict[str, str] | None = None,
    ) -> str:
        """What the batch says on standard error."""
        done = maskdrop(self.words(arguments, settings), prefix, env=env)
        told, ended = done.stderr, done.returncode
        assert "Traceback" not in told, told
        assert ended == code, told
        return told

    def reported(self, *arguments: str, code: int, **options: Any) -> dict[str, Any]:
        path = self.base / "report.json"
        self.run("--report", str(path), *arguments, code=code, **options)
        report: dict[str, Any] = json.loads(path.read_text())
        return report

    def results(self) -> dict[str, int]:
        """Each result, and when it was written, in nanoseconds."""
        paths = [path for path in self.out.rglob("*") if path.is_file() and not path.name.startswith(".")]
        return {os.fspath(path.relative_to(self.out)): path.stat().st_mtime_ns for path in paths}

    def temporary(self) -> list[Path]:
        return [path for top in (self.out, self.lost) for path in top.rglob(".maskdrop-*")]


def snapshot(folder: Path) -> dict[str, tuple[str, int, int, int, int]]:
    """Digest, inode, times and permissions of all that is below a folder; folders and hidden things too."""
    seen = {}
    for path in (folder, *folder.rglob("*")):
        status = path.lstat()
        is_file = stat.S_ISREG(status.st_mode)
        content = hashlib.sha256(path.read_bytes()).hexdigest() if is_file else ""
        times = (status.st_mtime_ns, status.st_ctime_ns)
        seen[os.fspath(path)] = (content, status.st_ino, *times, status.st_mode)
    return seen


def bytes_of(entry: dict[str, Any]) -> bytes:
    return bytes.fromhex(entry["hex"]) if entry.get("hex") else str(entry["path"]).encode()


def by_outcome(report: dict[str, Any]) -> dict[str, set[bytes]]:
    found: dict[str, set[bytes]] = {}
    for entry in report["pictures"]:
        found.setdefault(entry["outcome"], set()).add(bytes_of(entry))
    return found

"""A folder of pictures, and batches on it by either engine, as processes."""

import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from batch_job import Pictures
from maskdrop.commands.app import app
from maskdrop.exit_codes import EX_CONFIG
from running import FULL, maskdrop

parquet: Any = pytest.importorskip("pyarrow.parquet")


@dataclass
class Job(Pictures):
    """Batches on a folder of pictures by either engine."""

    def words(
        self, arguments: tuple[str, ...], engine: str, settings: str, source: object, out: object
    ) -> list[str]:
        """What is typed behind `maskdrop`."""
        config = self.base / f"maskdrop-{engine}.toml"
        config.write_text(settings)
        words = ["batch", str(source or self.source), str(out or self.out), *arguments]
        words += ["--engine", engine, "--config", str(config)]
        return words if "--weights" in words else [*words, "--weights", str(self.weights)]

    def begin(
        self,
        *arguments: str,
        settings: str = FULL,
        source: object = None,
        out: object = None,
        **options: Any,
    ) -> Any:
        command = [sys.executable, "-m", "maskdrop", *self.words(arguments, "ray", settings, source, out)]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options}
        return subprocess.Popen(command, text=True, **options)

    def refused(self, *arguments: str, engine: str = "ray", source: object = None, out: object = None) -> str:
        """What is said when nothing is begun; by this process, which has everything imported."""
        done = CliRunner().invoke(app, self.words(arguments, engine, FULL, source, out))
        assert done.exit_code == EX_CONFIG, done.output
        return done.output

    def run(self, *arguments: str, code: int, **options: Any) -> str:
        """All that the batch says."""
        process = self.begin(*arguments, **options)
        told: str = process.communicate(timeout=500)[0]
        check_end(told, process.returncode, code)
        return told

    def run_here(self, out: Path, code: int, settings: str) -> None:
        """The same with the local engine."""
        done = maskdrop(self.words((), "local", settings, None, out))
        check_end(done.stdout + done.stderr, done.returncode, code)

    def rows(self, out: Path | None = None) -> list[dict[str, Any]]:
        """The whole manifest, read as one."""
        rows: list[dict[str, Any]] = parquet.read_table((out or self.out) / "manifest.parquet").to_pylist()
        return rows

    def outcomes(self) -> dict[str, str]:
        """Of each picture, which has exactly one row."""
        rows = [(os.fsdecode(bytes.fromhex(r["hex"])) if r["hex"] else r["input"], r) for r in self.rows()]
        assert max(Counter(path for path, _ in rows).values()) == 1
        return {path: row["outcome"] for path, row in rows}

    def results(self, out: Path | None = None) -> dict[str, bytes]:
        top = out or self.out
        paths = [path for path in top.rglob("*") if path.is_file() and path.suffix != ".parquet"]
        return {str(p.relative_to(top)): p.read_bytes() for p in paths if not p.name.startswith(".")}


def check_end(told: str, ended_with: int, code: int) -> None:
    assert "Traceback" not in told, told
    assert "Warning" not in told, told
    assert ended_with == code, told

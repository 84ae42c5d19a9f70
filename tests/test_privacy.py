"""Nothing of maskdrop tells anybody anything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import pathlib
from maskdrop.model.errors import WeightsError
from maskdrop.model.onnx_network import load_onnx
try:
    load_onnx(b"no network", pathlib.Path("x.onnx"), "cpu", 1)
except WeightsError as error:
    print(error)
"""


def test_onnx_runtime_neither_marks_the_machine_nor_reports(tmp_path: Path) -> None:
    """Where it reports, it first writes its identity of the machine and a queue into the user's home."""
    pytest.importorskip("onnx", reason="needs maskdrop[onnx]")
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=home, capture_output=True, text=True, check=True
    )
    assert "x.onnx" in done.stdout
    assert list(tmp_path.rglob("*")) == []
